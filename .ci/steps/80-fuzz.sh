# Each fuzz target, FUZZ_SECONDS long, from the corpus of the tree.
need c++ g++
for target in http chunked query dns_reply name_files flags core; do
    step "fuzz-$target" benches/fuzz/run "$target" "${FUZZ_SECONDS:-20}"
done
