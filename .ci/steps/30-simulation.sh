# The whole core with virtual time and injected faults, over many more seeds than `cargo test`.
step simulation env SIM_SEEDS=2000 cargo test --test simulation
