#!/usr/bin/env bash
# Builds the image twice and runs it as hostile clusters do.
. "$(dirname "$0")/lib.sh"

url=http://203.0.113.1:8080
ask() { outside curl -sS --max-time 60 "$url$1"; }
is_ready() { outside curl -sf --max-time 1 "$url/readyz"; }
pid() { podman inspect op --format '{{.State.Pid}}'; }
kilobytes() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(pid)/status"; }

# start [FLAG…]: the service, with nothing that it can do without.
start() {
    podman rm -f op >/dev/null 2>&1 || true
    podman run -d --name op --network ns:/run/netns/op-in --health-interval=disable \
        --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
        -e OPENPORTS_DRAIN_TIMEOUT=1s "$@" "$image" >/dev/null
}

# ends CODE: the container ends by itself, so.
ends() {
    check "exit code" "$1" "$(timeout 30 podman wait op)"
}

trap 'podman rm -f op >/dev/null 2>&1 || true; unplug' EXIT
plug

echo "-- the image: built twice, the same bytes; the binary and nothing else"
build_image
build "$image"
build localhost/openports:again --no-cache
# Not the image's id: podman notes in it what it took from its cache.
layers() { podman image inspect "$1" --format '{{.RootFS.Layers}}'; }
check "layers, built twice" "?$(layers "$image" | tr -d '[]')?" \
    "$(layers localhost/openports:again)"
rm -rf "$work/image" && mkdir "$work/image"
podman save --format docker-dir -o "$work/image" "$image" >/dev/null 2>&1
files=$(jq -r '.layers[].digest | sub("sha256:"; "")' "$work/image/manifest.json" |
    while read -r layer; do tar -tvf "$work/image/$layer" | awk '{ print $6, $3 }'; done)
check "files and their size" "openports *" "$files"
check "number of files" 1 "$(wc -l <<<"$files")"
at_most "bytes" 1500000 "${files#* }"
config='{{.Config.User}} {{.Config.StopSignal}} {{.Config.Env}}'
check "configuration" "65532:65532 SIGTERM *OPENPORTS_LISTEN=?::?:8080*" \
    "$(podman image inspect "$image" --format "$config")"
check "labels" "*org.opencontainers.image.licenses:MIT*" \
    "$(podman image inspect "$image" --format '{{.Config.Labels}}')"

echo "-- read-only, any user, no capability, 32 MB"
start --user 1000660000:0 --memory 32m
within 10 is_ready
# Below zero: it listens before podman has noted that it runs.
began=$(podman inspect op --format '{{.State.StartedAt.UnixMilli}}')
listening=$(podman logs op 2>&1 | sed -n 's/^ts=\([^ ]*\) .*msg=listening.*/\1/p')
at_most "ms from start to listening" 100 $(($(date -d "$listening" +%s%3N) - began))
check "capabilities" 0000000000000000 \
    "$(awk '/CapBnd/ { print $2 }' "/proc/$(pid)/status")"
at_most "kB idle" 3072 "$(kilobytes VmRSS)"
answer=$(ask '/open-ports?domain=203.0.113.2&toPort=65535')
check "a scan through it" '*"counts":{"open":0,"closed":65535,*"complete":true*' "$answer"
outside python3 -m http.server --bind 203.0.113.2 8000 >/dev/null 2>&1 &
server=$!
within 10 outside curl -sf http://203.0.113.2:8000/
check "finds what listens" '*"open_ports":?8000?,*' \
    "$(ask '/open-ports?domain=203.0.113.2&toPort=9000')"
kill "$server"
podman healthcheck run op >/dev/null || fail "HEALTHCHECK says unwell"
echo "   HEALTHCHECK passes"
if podman run --rm --network none "$image" healthcheck 127.0.0.1:1 >/dev/null 2>&1; then
    fail "a healthcheck without a service passes"
fi

echo "-- SIGTERM during a scan: the partial answer arrives"
ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=30s' >"$work/answer" &
curl=$!
within 10 eval 'ask /metrics | grep -q "^openports_scans_running 1"'
podman kill -s TERM op >/dev/null
wait "$curl"
check "partial answer" '*"complete":false*' "$(cat "$work/answer")"
ends 0

echo "-- every descriptor in flight"
start
within 10 is_ready
ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=30s' >/dev/null &
flying() { ask /metrics | awk '/^openports_connects_in_flight / { n = $2 }
    /^openports_connects_in_flight_max / { exit n < $2 }'; }
within 20 flying
in_flight=$(ask /metrics | awk '/^openports_connects_in_flight / { print $2 }')
at_most "kB with $in_flight in flight" 12288 "$(kilobytes VmRSS)"
podman kill -s TERM op >/dev/null
ends 0

echo "-- memory caps: the kernel's sockets are charged too, and a full scan survives"
for cap in 32m 16m; do
    start --memory "$cap"
    within 10 is_ready
    answer=$(ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=500ms&retries=0')
    check "$cap" '*"filtered":65535,*"complete":true*' "$answer"
    podman kill -s TERM op >/dev/null
    ends 0
done

echo "-- no resolv.conf, no hosts, 64 descriptors"
start --dns none --no-hosts --ulimit nofile=64:64
within 10 is_ready
check "limits" '*descriptors=64 *' "$(podman logs op 2>&1 | grep msg=limits)"
check "a scan" '*"closed":2000,*"complete":true*' \
    "$(ask '/open-ports?domain=203.0.113.2&toPort=2000')"
check "a name" '*"status":5*' "$(ask '/open-ports?domain=example.invalid&toPort=2')"

echo "-- SIGTERM twice: at once"
ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=30s' >/dev/null 2>&1 &
within 10 eval 'ask /metrics | grep -q "^openports_scans_running 1"'
podman kill -s TERM op >/dev/null
podman kill -s TERM op >/dev/null
ends 0

echo "-- SIGTERM as soon as it can be sent, to process 1"
for _ in 1 2 3; do
    start
    podman kill -s TERM op >/dev/null
    ends 0
done

echo "-- a Secret that is missing: no service without the token, and one line that says why"
start -e OPENPORTS_TOKEN_FILE=/secret/token
ends 71
check "why" 'openports: --token-file /secret/token: *' "$(podman logs op 2>&1)"

echo "-- wrong configuration: exit 64"
start -e OPENPORTS_MAX_SCANS=none
ends 64
