# What the pure modules cost in instructions and allocations, against what was recorded.
need valgrind valgrind
step benches cargo bench --bench modules -- --check
