# The manifests as Kubernetes would see them, and as podman plays them.
need podman podman buildah runc catatonit
need ip iproute2
need curl curl
need jq jq
need busybox busybox-static
need promtool prometheus
need kubectl kubernetes-client
step manifests .ci/container/manifests.sh
