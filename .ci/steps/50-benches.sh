# The instructions and allocations of the pure modules, compared with the recorded ones.
need valgrind valgrind
step benches cargo bench --bench modules -- --check
