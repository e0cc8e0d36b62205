#!/usr/bin/env bash
# Installs the Debian package on a fresh Debian in a container with systemd, runs and stops the
# service, and removes and purges the package. Usage: .ci/package/install.sh PACKAGE
deb=$(realpath "$1")
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || { echo "this test starts a container: run it as root"; exit 1; }

echo "-- a fresh Debian"
# The container has its own control group, so that the groups that systemd creates in it can be
# removed.
groups=/sys/fs/cgroup
[ ! -d $groups/systemd ] || groups=$groups/systemd
group=$groups/openports-ci-$$
machine=
cleanup() {
    [ -z "$machine" ] || kill -KILL "$machine" 2>/dev/null || true
    wait
    find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
}
trap cleanup EXIT
[ -f "$work/debian.tar" ] || mmdebstrap --quiet --format=tar --variant=minbase \
    --include=systemd,man-db,curl,iproute2 "$(. /etc/os-release && echo "$VERSION_CODENAME")" \
    "$work/debian.part" 2>"$work/mmdebstrap.log" ||
    { cat "$work/mmdebstrap.log"; fail "mmdebstrap"; }
[ -f "$work/debian.tar" ] || mv "$work/debian.part" "$work/debian.tar"
rm -rf "$work/tree" && mkdir "$work/tree"
tar -C "$work/tree" -xf "$work/debian.tar"
rm -f "$work/tree/etc/dpkg/dpkg.cfg.d/"*
cp "$deb" "$work/tree/openports.deb"
mkdir "$group"
sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$group" \
    unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child \
    .ci/package/boot "$work/tree" >"$work/boot.log" 2>&1 &
unshare=$!
within 20 eval 'machine=$(cat /proc/$unshare/task/$unshare/children) && [ -n "$machine" ]'
machine=$(tr -d ' ' <"/proc/$unshare/task/$unshare/children")
on() { nsenter --target "$machine" --all "$@"; }
within 30 eval 'on systemctl is-system-running | grep -qE "running|degraded"'

echo "-- installed, and started with one command"
on dpkg -i /openports.deb >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "dpkg -i"; }
check "running" inactive "$(on systemctl is-active openports || true)"
on systemctl enable --now openports >"$work/enable.log" 2>&1 ||
    { on journalctl -n 20 --no-pager; fail "systemctl enable --now"; }
url=http://127.0.0.1:8080
answer=$(on curl -sS "$url/open-ports?domain=127.0.0.1&toPort=65535")
check "a scan" '*"open_ports":?8080?,*"complete":true*' "$answer"
show() { on systemctl show openports -p "$1" --value; }
check "notified" notify "$(show Type)"
check "a user that exists only now (61184-65519)" "6[1-5][0-9][0-9][0-9]" \
    "$(on stat -c %u "/proc/$(show MainPID)")"
status() { on awk -v field="$1:" '$1 == field { print $2 }' "/proc/$(show MainPID)/status"; }
check "capabilities" "0000000000000000 0000000000000000" "$(status CapBnd) $(status CapEff)"
check "no new privileges, a filter of calls" "1 2" "$(status NoNewPrivs) $(status Seccomp)"
check "descriptors" 131072 "$(show LimitNOFILE)"
check "verify" "" "$(on systemd-analyze verify openports.service openports.socket 2>&1)"
exposure=$(on systemd-analyze security --offline=true --no-pager \
    /lib/systemd/system/openports.service | sed -n 's/.*exposure level.*: \([0-9.]*\).*/\1/p')
check "exposure, at most 1.5" "[01].[0-9]" "$exposure"
awk -v it="$exposure" 'BEGIN { exit it > 1.5 }' || fail "the exposure is above 1.5"
check "manual" "*find a host's open TCP ports*" "$(on env MANPAGER=cat man openports | head -20)"
check "completions" "complete *openports" "$(on bash -c \
    '. /usr/share/bash-completion/completions/openports && complete -p openports')"
check "notices" "*MIT*" "$(on cat /usr/share/doc/openports/copyright | tr '\n' ' ')"

echo "-- a Unix socket in its directory, wrong configuration, no configuration"
# configure LINE…: writes the settings and restarts the service.
configure() {
    printf '%s\n' "$@" >"$work/tree/etc/default/openports"
    on systemctl restart openports
}
configure OPENPORTS_LISTEN=unix:/run/openports/openports.sock
check "through the socket" "ok*" \
    "$(on curl -sS --unix-socket /run/openports/openports.sock http://localhost/healthz)"
! configure OPENPORTS_MAX_SCANS=none 2>/dev/null || fail "it runs with wrong configuration"
check "exit code, restarts" "64 0" "$(show ExecMainStatus) $(show NRestarts)"
mv "$work/tree/etc/default/openports" "$work/tree/etc/default/kept"
on systemctl reset-failed openports
on systemctl start openports
check "without its file" "ok*" "$(on curl -sS "$url/healthz")"
mv "$work/tree/etc/default/kept" "$work/tree/etc/default/openports"

echo "-- a token, as docs/operations.md has it"
on sh -c 'umask 077; echo a-token-for-tests >/etc/openports.token'
mkdir -p "$work/tree/etc/systemd/system/openports.service.d"
printf '%s\n' '[Service]' LoadCredential=token:/etc/openports.token \
    Environment=OPENPORTS_TOKEN_FILE=%d/token \
    >"$work/tree/etc/systemd/system/openports.service.d/override.conf"
on systemctl daemon-reload
configure ""
local_scan=$url/open-ports?domain=127.0.0.1\&toPort=9
check "without it" '*"status":401*' "$(on curl -sS "$local_scan")"
check "with it" '*"complete":true*' \
    "$(on curl -sS -H 'Authorization: Bearer a-token-for-tests' "$local_scan")"
rm "$work/tree/etc/systemd/system/openports.service.d/override.conf"
rm "$work/tree/etc/openports.token"

echo "-- CAP_NET_RAW, only by the drop-in"
on install -D -m 644 /usr/share/openports/cap-net-raw.conf \
    /etc/systemd/system/openports.service.d/cap-net-raw.conf
# The scan that the removal interrupts below needs more time than this, which the service requests.
printf '%s\n' '[Service]' TimeoutStopSec=1s \
    >"$work/tree/etc/systemd/system/openports.service.d/stop.conf"
on systemctl daemon-reload
configure OPENPORTS_DRAIN_TIMEOUT=2s
check "capabilities" "0000000000002000 0000000000002000" "$(status CapBnd) $(status CapEff)"
check "a scan" '*"complete":true*' "$(on curl -sS "$url/open-ports?domain=127.0.0.1&toPort=99")"

echo "-- started by its socket"
on systemctl stop openports
on systemctl start openports.socket
check "running" inactive "$(on systemctl is-active openports || true)"
check "an answer" "ok*" "$(on curl -sS "$url/healthz")"
check "running" active "$(on systemctl is-active openports)"

echo "-- installed again while it runs, removed during a scan, purged"
process=$(show MainPID)
on dpkg -i /openports.deb >>"$work/dpkg.log" 2>&1
check "an answer" "ok*" "$(on curl -sS "$url/healthz")"
[ "$(show MainPID)" != "$process" ] || fail "the old binary still runs"
on curl -sS "$url/open-ports?domain=203.0.113.9&toPort=1000&timeout=50s" >"$work/answer" &
curl=$!
within 10 eval 'on curl -sS $url/metrics | grep -q "^openports_scans_running 1"'
on dpkg -r openports >>"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "dpkg -r"; }
wait "$curl" || fail "the scan was not answered"
check "the answer to the scan" '*"complete":false*' "$(cat "$work/answer")"
check "running processes" "" "$(on sh -c 'cat /proc/[0-9]*/comm' | grep openports || true)"
[ -f "$work/tree/etc/default/openports" ] || fail "the removal has deleted the configuration"
on dpkg -P openports >>"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log"; fail "dpkg -P"; }
check "remaining files" "" "$(cd "$work/tree" && find etc usr lib/systemd var/lib/dpkg/info \
    -name '*openports*')"
check "failed units" "" "$(on systemctl list-units --failed --plain --no-legend 'openports*')"
