# The image as it is built and run: Dockerfile, hardening, caps, signals.
need podman podman buildah runc catatonit
need ip iproute2
need curl curl
need jq jq
step container .ci/container/image.sh
