# The README's command: unit tests, the style, the service, the lab.
need cc build-essential
need ip iproute2
need nft nftables
step tests cargo test
