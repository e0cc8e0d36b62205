# Each fuzz target, FUZZ_SECONDS long, from the corpus of the tree.
need c++ g++
step fuzz .ci/fuzz/all "${FUZZ_SECONDS:-20}"
