# The README's command: unit tests, the style, the service, the lab.
need cc build-essential
need ip iproute2
need nft nftables
need xmllint libxml2-utils
need nmap nmap
step tests cargo test
