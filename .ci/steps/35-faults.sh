# Every system call failing with every errno, and more seeds of faults by chance than `cargo test`.
step faults env FAULT_STRIDE=1 FAULT_SEEDS=16 cargo test --test faults
