#!/usr/bin/env bash
# Builds the image for this processor and for arm64, and runs the latter in an emulator. The bytes
# of the binary must equal those that manifests/package/binary builds in another directory.
. "$(dirname "$0")/lib.sh"

service=
trap '[ -z "$service" ] || kill "$service" 2>/dev/null || true' EXIT

# Prints the files of the layers, one per line, with name and size.
files() {
    rm -rf "$work/image" && mkdir "$work/image"
    podman save --format docker-dir -o "$work/image" "localhost/openports:$1" >/dev/null 2>&1
    jq -r '.layers[].digest | sub("sha256:"; "")' "$work/image/manifest.json" |
        while read -r layer; do tar -tvf "$work/image/$layer" | awk '{ print $6, $3 }'; done
}
about() { podman image inspect "localhost/openports:$1" --format "$2"; }

# lean NAME ARCHITECTURE: the image contains the binary, its bill of materials, and nothing else.
lean() {
    local found
    found=$(files "$1" | sort)
    check "$1: files" "openports openports.cdx.json" "$(awk '{ print $1 }' <<<"$found" | xargs)"
    at_most "$1: bytes" 1500000 "$(awk '$1 == "openports" { print $2 }' <<<"$found")"
    check "$1: architecture" "$2" "$(about "$1" '{{.Architecture}}')"
}

echo "-- built for both processors"
build_image
revision=$(git rev-parse HEAD 2>/dev/null || echo none)
# Both builds run at once, because the linker takes most of the time and uses one processor.
build ci --label "org.opencontainers.image.revision=$revision" . &
first=$!
# The podman of Debian 12 needs BUILDPLATFORM as an argument. This build leaves no layers in the
# cache: its first layers equal those of the other build, and would hide the compiled dependencies
# from the build `changed`.
own=$(dpkg --print-architecture)
build arm64 --layers=false --platform linux/arm64 --build-arg "BUILDPLATFORM=linux/$own" . &
second=$!
wait "$first" && wait "$second"

echo "-- the binary and its bill of materials, for both processors"
lean ci "$own"
lean arm64 arm64
files ci >/dev/null
layer=$(jq -r '.layers[-1].digest' "$work/image/manifest.json")
check "its bytes, as manifests/package/binary makes them" \
    "$(sha256sum <"$(manifests/package/binary)")" \
    "$(tar -xOf "$work/image/${layer#sha256:}" openports | sha256sum)"
config='{{.Config.User}} {{.Config.StopSignal}} {{.Config.Env}} {{.Config.Entrypoint}}'
check "configuration" "65532:65532 SIGTERM *OPENPORTS_LISTEN=?::?:8080* ?/openports?" \
    "$(about ci "$config")"
check "HEALTHCHECK" "*/openports healthcheck*" "$(about ci '{{.Config.Healthcheck.Test}}')"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
for label in title=openports "description=?*" licenses=MIT "version=$version" "revision=$revision"; do
    key=org.opencontainers.image.${label%%=*}
    check "$key" "${label#*=}" "$(about ci "{{index .Config.Labels \"$key\"}}")"
done

echo "-- sources that change leave the dependencies alone"
mkdir -p "$work/changed/src"
cp -r --parents Dockerfile .dockerignore Cargo.toml Cargo.lock docs \
    manifests/package/openports.cdx.json "$work/changed"
echo >"$work/changed/src/lib.rs"
echo 'fn main() {}' >"$work/changed/src/main.rs"
build changed "$work/changed"
compiled=$(grep -o 'Compiling [a-z].*' "$work/build-changed.log" | grep -v ' openports v' || true)
check "dependencies compiled anew" "" "$compiled"

echo "-- the image of arm64, under an emulator"
layer=$(files arm64 >/dev/null && jq -r '.layers[-1].digest' "$work/image/manifest.json")
tar -xf "$work/image/${layer#sha256:}" -C "$work" openports
arm() { qemu-aarch64-static "$work/openports" "$@"; }
check "--version" "openports $version" "$(arm --version)"
notices=$(arm licenses)
for crate in $(jq -r '.components[].name' manifests/package/openports.cdx.json); do
    [[ $notices == *"$crate"* ]] || fail "the notices do not name $crate"
done
echo "   notices: $(wc -l <<<"$notices") lines, and they name every crate"
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
