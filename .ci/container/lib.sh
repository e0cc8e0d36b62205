# The functions that the container tests share. The build image is made from this machine, so no
# registry is needed. The tests use two network namespaces that a veth pair connects: `op-in`
# (203.0.113.1) for the containers, and `op-out` (203.0.113.2) for their clients and targets. The
# address 203.0.113.9 is silent.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=$PWD/.ci/container
work=$PWD/target/ci-container
image=localhost/openports:ci
mkdir -p "$work"

[ "$(id -u)" -eq 0 ] || { echo "these tests make network namespaces: run them as root"; exit 1; }

# podman requests higher limits than some machines permit. The wrapper drops those.
cat >"$work/containers.conf" <<C
[engine]
runtime = "norlimit"
events_logger = "file"
[engine.runtimes]
norlimit = ["$here/runc-norlimit"]
C
export CONTAINERS_CONF=$work/containers.conf

# Without systemd, podman logs errors about timers of health checks, which are not used here.
podman() { command podman --log-level fatal "$@"; }
inside() { nsenter --net=/run/netns/op-in "$@"; }
outside() { nsenter --net=/run/netns/op-out "$@"; }

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# check WHAT EXPECTED ACTUAL: the actual text matches the expected pattern of bash's `[[ == ]]`.
check() {
    # shellcheck disable=SC2053
    [[ $3 == $2 ]] || fail "$1: expected $2, got: $3"
    echo "   $1: ${3:0:160}"
}

# at_most WHAT LIMIT ACTUAL: the actual number does not exceed the limit.
at_most() {
    [ "$3" -le "$2" ] || fail "$1: $3, more than $2"
    echo "   $1: $3 (at most $2)"
}

# within SECONDS COMMAND…: repeats the command until it succeeds, which must be within this time.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "not in time: $*"
        sleep 0.05
    done
}

plug() {
    unplug
    ip netns add op-in
    ip netns add op-out
    ip -n op-in link set lo up
    ip -n op-out link set lo up
    ip -n op-in link add eth0 type veth peer name eth0 netns op-out
    ip -n op-in addr add 203.0.113.1/24 dev eth0
    ip -n op-out addr add 203.0.113.2/24 dev eth0
    ip -n op-in link set eth0 up
    ip -n op-out link set eth0 up
    # No device has this hardware address, so the packets get no answer.
    ip -n op-in neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent
}

unplug() {
    ip netns del op-in 2>/dev/null || true
    ip netns del op-out 2>/dev/null || true
}

# Makes an image for builds with the compiler of this machine. Its links lead into /usr, which
# `build` mounts, so the targets of the compiler must be installed on this machine.
build_image() {
    local root
    root=$(mktemp -d)
    mkdir -p "$root"/{usr,etc,tmp,cargo,rustup}
    cp -P /bin /lib* "$root"/
    cp -rP /etc/alternatives /etc/ssl /etc/ld.so.* /etc/passwd /etc/group "$root/etc/"
    tar -C "$root" -c . | podman import -q --change "ENV=PATH=/cargo/bin:/usr/bin:/bin:/usr/sbin" \
        --change "ENV=CARGO_HOME=/cargo" --change "ENV=RUSTUP_HOME=/rustup" \
        - localhost/openports-build:ci >/dev/null
    rm -rf "$root"
    rustup -q target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
}

# build NAME [FLAG…] DIRECTORY: builds the unchanged Dockerfile as localhost/openports:NAME. With
# `:O`, the build does not write to the mounted directories.
build() {
    local name=$1
    shift
    podman build --format docker --timestamp 0 --network host -t "localhost/openports:$name" \
        --build-arg "BUILD_IMAGE=localhost/openports-build:ci" \
        -v /usr:/usr:ro -v "${CARGO_HOME:-$HOME/.cargo}:/cargo:O" \
        -v "${RUSTUP_HOME:-$HOME/.rustup}:/rustup:O" "$@" >"$work/build-$name.log" 2>&1 ||
        { tail -30 "$work/build-$name.log"; fail "podman build: $name"; }
}
