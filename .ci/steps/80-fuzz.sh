# Runs each fuzz target for FUZZ_SECONDS, beginning with the corpus of the repository.
need c++ g++
step fuzz .ci/fuzz/all "${FUZZ_SECONDS:-20}"
