#!/usr/bin/env bash
# Runs the image with the restrictions of strict clusters. Needs the image of build.sh.
. "$(dirname "$0")/lib.sh"

url=http://203.0.113.1:8080
ask() { outside curl -sS --max-time 60 "$url$1"; }
is_ready() { outside curl -sf --max-time 1 "$url/readyz"; }
pid() { podman inspect op --format '{{.State.Pid}}'; }
kilobytes() { awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(pid)/status"; }

# start [FLAG…]: starts the service, read-only, without capabilities and without a health check.
start() {
    podman rm -f op >/dev/null 2>&1 || true
    podman run -d --name op --network ns:/run/netns/op-in --health-interval=disable \
        --read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges \
        -e OPENPORTS_DRAIN_TIMEOUT=1s "$@" "$image" >/dev/null
}

# ends CODE: the container ends by itself with this code, and not because of a lack of memory.
ends() {
    check "exit code" "$1" "$(timeout 30 podman wait op)"
    check "killed for memory" false "$(podman inspect op --format '{{.State.OOMKilled}}')"
}

# Prints all processes in the process namespace of the container, including zombies.
processes() {
    local own at
    own=$(readlink "/proc/$(pid)/ns/pid")
    for at in /proc/[0-9]*; do
        # A process that has ended does not show its namespace, but is still a child of its parent.
        [ "$(readlink "$at/ns/pid" 2>/dev/null)" != "$own" ] || basename "$at"
    done
    cat "/proc/$(pid)/task/$(pid)/children"
}
is_alone() { [ "$(processes)" = "$(pid)" ]; }

# Starts a listener on port 8000 in `op-out`. It does not use the function `outside`, because `$!`
# would then be the id of a shell.
server=
serve() {
    nsenter --net=/run/netns/op-out \
        python3 -m http.server --bind 203.0.113.2 8000 >/dev/null 2>&1 &
    server=$!
    within 10 outside curl -sf http://203.0.113.2:8000/
}
stop_serving() {
    [ -z "$server" ] || kill "$server"
    server=
}

podman image exists "$image" || { build_image && build ci .; }
trap 'stop_serving; podman rm -f op >/dev/null 2>&1 || true; unplug' EXIT
plug

echo "-- read-only, any user, no capability, 32 MB"
start --user 1000660000:0 --memory 32m
within 10 is_ready
# The difference is negative if the service listens before podman has recorded its start.
began=$(podman inspect op --format '{{.State.StartedAt.UnixMilli}}')
listening=$(podman logs op 2>&1 | sed -n 's/^ts=\([^ ]*\) .*msg=listening.*/\1/p')
at_most "ms from start to listening" 100 $(($(date -d "$listening" +%s%3N) - began))
check "capabilities" 0000000000000000 \
    "$(awk '/CapBnd/ { print $2 }' "/proc/$(pid)/status")"
at_most "kB idle" 3072 "$(kilobytes VmRSS)"
answer=$(ask '/open-ports?domain=203.0.113.2&toPort=65535')
check "a scan through it" '*"counts":{"open":0,"closed":65535,*"complete":true*' "$answer"
serve
check "finds what listens" '*"open_ports":?8000?,*' \
    "$(ask '/open-ports?domain=203.0.113.2&toPort=9000')"
stop_serving
podman healthcheck run op >/dev/null || fail "HEALTHCHECK fails"
echo "   HEALTHCHECK passes"
if podman run --rm --network none "$image" healthcheck 127.0.0.1:1 >/dev/null 2>&1; then
    fail "a healthcheck without a service passes"
fi

# A process whose parent, a debugging shell in the namespace, has ended becomes a child of process
# 1.
rm -f "$work/gate" && mkfifo "$work/gate"
nsenter --target "$(pid)" --pid sh -c "(cat '$work/gate' >/dev/null &)"
exec 3>"$work/gate"
is_alone && fail "the shell left no process behind"
exec 3>&-
within 10 is_alone
echo "   process 1 keeps no zombies"

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

echo "-- memory caps: the kernel's sockets are charged too, and full scans survive"
serve
for cap in 32m/4551 16m/1820; do
    start --memory "${cap%/*}"
    within 10 is_ready
    check "${cap%/*}" "*in_flight=${cap#*/} *" "$(podman logs op 2>&1 | grep msg=limits)"
    answer=$(ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=500ms&retries=0')
    check "silent" '*"filtered":65535,*"complete":true*' "$answer"
    answer=$(ask '/open-ports?domain=203.0.113.2&toPort=65535')
    check "closed" '*"open_ports":?8000?,*"open":1,"closed":65534,*"complete":true*' "$answer"
    podman kill -s TERM op >/dev/null
    ends 0
done

echo "-- SYN scans: with CAP_NET_RAW as the same user, and a 400 without"
syn='/open-ports?domain=203.0.113.2&toPort=9000&technique=syn'
start
within 10 is_ready
check "without" '*"status":400*cap-add NET_RAW*' "$(ask "$syn")"
podman rm -f op >/dev/null
start --cap-add NET_RAW
within 10 is_ready
check "user" 65532 "$(awk '/^Uid/ { print $2 }' "/proc/$(pid)/status")"
check "effective between scans" 0000000000000000 \
    "$(awk '/CapEff/ { print $2 }' "/proc/$(pid)/status")"
check "a scan" '*"open_ports":?8000?,*"open":1,"closed":8999,*"complete":true*' "$(ask "$syn")"
podman kill -s TERM op >/dev/null
ends 0
# Docker and Kubernetes put the capability only into the bounding set, so the capability of the file
# must grant it to the process.
root=$(podman image mount "$image")
answer=$(inside setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps -all \
    --ambient-caps -all --bounding-set -all,+net_raw \
    "$root/openports" scan --json --technique syn 203.0.113.2 1-9000)
check "by the file's capability" '*"open_ports":?8000?,*"open":1,"closed":8999,*' "$answer"
podman image unmount "$image" >/dev/null

echo "-- no resolv.conf, no hosts, 64 descriptors"
start --dns none --no-hosts --ulimit nofile=64:64 -e OPENPORTS_DRAIN_TIMEOUT=120s
within 10 is_ready
root=/proc/$(pid)/root
for file in resolv.conf hosts; do
    [ ! -s "$root/etc/$file" ] || fail "there is an /etc/$file"
done
check "limits" '*descriptors=64 *' "$(podman logs op 2>&1 | grep msg=limits)"
check "a scan" '*"open_ports":?8000?,*"open":1,"closed":65534,*"complete":true*' \
    "$(ask '/open-ports?domain=203.0.113.2&toPort=65535')"
stop_serving
check "a name" '*"status":5*' "$(ask '/open-ports?domain=example.invalid&toPort=2')"
check "localhost is known all the same" '*The address 127.0.0.1 is not scanned*' \
    "$(ask '/open-ports?domain=localhost&toPort=2')"

echo "-- SIGTERM twice: at once, though the drain may take two minutes"
ask '/open-ports?domain=203.0.113.9&toPort=65535&timeout=30s' >/dev/null 2>&1 &
within 10 eval 'ask /metrics | grep -q "^openports_scans_running 1"'
podman kill -s TERM op >/dev/null
podman kill -s TERM op >/dev/null
ends 0

echo "-- SIGTERM before the first poll, to process 1"
# Runs the binary of the image in a process namespace of its own. strace sends the signal at an
# exact call.
root=$(podman image mount "$image")
for call in signalfd4 listen epoll_create1; do
    log=$(cd "$work" && timeout 30 strace -f -e "inject=$call:signal=SIGTERM" -o /dev/null \
        unshare --pid --fork "$root/openports" --listen 127.0.0.1:0 2>&1) ||
        fail "SIGTERM at $call: exit code $?"
    check "at $call" '*msg=draining signal=SIGTERM*msg=drained*' "$log"
done
podman image unmount "$image" >/dev/null
for _ in 1 2 3; do
    start
    podman kill -s TERM op >/dev/null
    ends 0
done

echo "-- SIGTERM to a sweep that still reads its list, as process 1"
podman rm -f op >/dev/null
podman run -d -i --name op --network ns:/run/netns/op-in --read-only --cap-drop all "$image" \
    scan --targets - 80 >/dev/null
podman kill -s TERM op >/dev/null
ends 143

echo "-- a Secret that is missing: no service without the token, and one line that says why"
start -e OPENPORTS_TOKEN_FILE=/secret/token
ends 71
check "why" 'openports: OPENPORTS_TOKEN_FILE "/secret/token": *' "$(podman logs op 2>&1)"

echo "-- wrong configuration: exit 64"
start -e OPENPORTS_MAX_SCANS=none
ends 64

echo "-- an interrupted index starts again: the last log of each index counts"
printf '203.0.113.2\n203.0.113.9\n' >"$work/targets.txt"
# index I TIMEOUT: starts pod I of a sweep by two pods.
index() {
    podman rm -f op >/dev/null
    podman run -d --name op --network ns:/run/netns/op-in --read-only --cap-drop all \
        -v "$work/targets.txt:/targets.txt:ro" "$image" scan --ndjson --targets /targets.txt \
        --shard "$1:2" --timeout "$2" --retries 0 1-2000 >/dev/null
}
index 0 60s
within 20 eval 'podman logs op | grep -q "event.:.end"'
podman kill -s TERM op >/dev/null
ends 1
check "its results so far" '*"complete":true*"complete":false*' "$(podman logs op)"
: >"$work/sweep.ndjson"
for shard in 0 1; do
    index "$shard" 500ms
    ends 0
    podman logs op >>"$work/sweep.ndjson"
done
check "merged" '?2000,true??2000,true?' "$(manifests/sweep/merge.sh "$work/sweep.ndjson" |
    jq -c '[(.counts | add), .complete]' | tr -d '\n')"

echo "-- N shards probe each port of each target once: every SYN is counted"
outside nft -f - <<'N'
table inet count {
    set seen { type ipv4_addr . inet_service; flags dynamic; counter; size 65535; }
    chain input {
        type filter hook input priority 0;
        tcp flags & (syn | ack) == syn update @seen { ip daddr . tcp dport }
    }
}
N
outside ip addr add 203.0.113.3/24 dev eth0
printf '203.0.113.2\n203.0.113.3\n' >"$work/targets.txt"
for shards in 1 3 7; do
    outside nft flush set inet count seen
    for ((shard = 0; shard < shards; shard++)); do
        podman run --rm --network ns:/run/netns/op-in --read-only --cap-drop all \
            -v "$work/targets.txt:/targets.txt:ro" "$image" \
            scan --ndjson --targets /targets.txt --shard "$shard:$shards" 1-500
    done >"$work/sweep.ndjson"
    # Each element is an address, a port and a number of SYNs. A scan pings one port of its target,
    # so this port gets more of them.
    seen=$(outside nft -j list set inet count seen |
        jq -c '[.nftables[].set // empty | .elem[].elem.counter.packets]')
    check "$shards shards: probed ports, and the minimum of SYNs" '?1000,1?' \
        "$(jq -c '[length, min]' <<<"$seen")"
    at_most "$shards shards: ports probed more than once" "$((2 * shards))" \
        "$(jq 'map(select(. > 1)) | length' <<<"$seen")"
    check "merged" '?500,true??500,true?' "$(manifests/sweep/merge.sh "$work/sweep.ndjson" |
        jq -c '[.counts.closed, .complete]' | tr -d '\n')"
done
