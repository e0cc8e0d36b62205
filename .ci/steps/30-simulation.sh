# The whole core with virtual time and injected faults, over many more seeds than `cargo test`, and
# whole scans of many more random networks.
step simulation env SIM_SEEDS=2000 SIM_NETWORKS=1000 cargo test --test simulation
