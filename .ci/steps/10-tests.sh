# The README's command: unit tests, the style, the service, the lab. The simulation runs more seeds
# and random networks than by default, and every system call fails with every errno.
need cc build-essential
need ip iproute2
need nft nftables
need xmllint libxml2-utils
need nmap nmap
step tests env SIM_SEEDS=2000 SIM_NETWORKS=1000 FAULT_STRIDE=1 FAULT_SEEDS=16 cargo test
