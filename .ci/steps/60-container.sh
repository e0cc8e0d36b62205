# The build and the run of the image: Dockerfile, both processors, hardening, limits, signals.
need podman podman buildah runc catatonit
need ip iproute2
need curl curl
need jq jq
need nft nftables
need strace strace
need setcap libcap2-bin
need setpriv util-linux
need qemu-aarch64-static qemu-user-static
step image .ci/container/build.sh
step container .ci/container/run.sh
