# What the pure rooms cost in instructions and allocations, against what was recorded.
need valgrind valgrind
step benches cargo bench --bench rooms -- --check
