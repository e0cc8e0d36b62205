#!/usr/bin/env bash
# Builds the image: twice for this processor and once for arm64, which an emulator then runs.
. "$(dirname "$0")/lib.sh"

service=
trap '[ -z "$service" ] || kill "$service" 2>/dev/null || true' EXIT

# What the layers hold: names and sizes, a file a line.
files() {
    rm -rf "$work/image" && mkdir "$work/image"
    podman save --format docker-dir -o "$work/image" "localhost/openports:$1" >/dev/null 2>&1
    jq -r '.layers[].digest | sub("sha256:"; "")' "$work/image/manifest.json" |
        while read -r layer; do tar -tvf "$work/image/$layer" | awk '{ print $6, $3 }'; done
}
about() { podman image inspect "localhost/openports:$1" --format "$2"; }

# lean NAME ARCHITECTURE: the binary and nothing else.
lean() {
    local found
    found=$(files "$1")
    check "$1: files and their size" "openports *" "$found"
    check "$1: number of files" 1 "$(wc -l <<<"$found")"
    at_most "$1: bytes" 1500000 "${found#* }"
    check "$1: architecture" "$2" "$(about "$1" '{{.Architecture}}')"
}

echo "-- built twice, in other directories with other tools' paths, and for arm64"
build_image
build_image /opt
rm -rf "$work/elsewhere" && mkdir "$work/elsewhere"
cp -r Dockerfile .dockerignore Cargo.toml Cargo.lock src "$work/elsewhere"
# At once: most of a build is the linker's, which takes one processor. Not from the same base with
# the same steps, or one's layers hide the other's in the cache.
build ci . &
first=$!
prefix=/opt build again --layers=false --no-cache "$work/elsewhere" &
second=$!
# The podman of Debian 12 has to be told what it runs on.
own=$(dpkg --print-architecture)
prefix=/opt build arm64 --platform linux/arm64 --build-arg "BUILDPLATFORM=linux/$own" . &
third=$!
wait "$first" && wait "$second" && wait "$third"
# Not the image's id: podman notes in it what it took from its cache.
layers() { about "$1" '{{.RootFS.Layers}}' | tr -d '[]'; }
check "layers, built twice" "$(layers ci)" "$(layers again)"

echo "-- the binary and nothing else, for both processors"
lean ci "$own"
lean arm64 arm64
config='{{.Config.User}} {{.Config.StopSignal}} {{.Config.Env}} {{.Config.Entrypoint}}'
check "configuration" "65532:65532 SIGTERM *OPENPORTS_LISTEN=?::?:8080* ?/openports?" \
    "$(about ci "$config")"
check "HEALTHCHECK" "*/openports healthcheck*" "$(about ci '{{.Config.Healthcheck.Test}}')"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
for label in title=openports "description=?*" licenses=MIT "version=$version" "revision=?*"; do
    key=org.opencontainers.image.${label%%=*}
    check "$key" "${label#*=}" "$(about ci "{{index .Config.Labels \"$key\"}}")"
done

echo "-- sources that change leave the dependencies alone"
mkdir -p "$work/changed/src"
cp Dockerfile .dockerignore Cargo.toml Cargo.lock "$work/changed"
echo >"$work/changed/src/lib.rs"
echo 'fn main() {}' >"$work/changed/src/main.rs"
build changed "$work/changed"
compiled=$(grep -o 'Compiling [a-z].*' "$work/build-changed.log" | grep -v ' openports v' || true)
check "dependencies compiled anew" "" "$compiled"

echo "-- the image of arm64, under an emulator"
layer=$(files arm64 >/dev/null && jq -r '.layers[0].digest' "$work/image/manifest.json")
tar -xf "$work/image/${layer#sha256:}" -C "$work" openports
arm() { qemu-aarch64-static "$work/openports" "$@"; }
check "--version" "openports $version" "$(arm --version)"
OPENPORTS_LISTEN=127.0.0.1:0 qemu-aarch64-static "$work/openports" 2>"$work/arm64.log" &
service=$!
listens() { sed -n 's/.*msg=listening address=\([0-9.:]*\).*/\1/p' "$work/arm64.log"; }
within 20 eval '[ -n "$(listens)" ]'
address=$(listens)
arm healthcheck "$address" || fail "its healthcheck"
answer=$(curl -sS --max-time 60 "http://$address/open-ports?domain=127.0.0.1&toPort=65535")
check "a scan" "*[,?]${address#*:}[],]*\"complete\":true*" "$answer"
kill "$service"
wait "$service" || fail "it ends with $?"
