#!/usr/bin/env bash
# Checks the alerts, the dashboard and the scrape configuration with promtool, and compares them
# with the metrics of a running service. Usage: .ci/monitoring/check.sh BINARY PYTHON
set -euo pipefail
# One of the names that are looked up does not exist. In a network namespace of its own, no query
# for it leaves the machine.
if [ -z "${ISOLATED:-}" ]; then
    ISOLATED=1 exec unshare -Urn "$0" "$@"
fi
ip link set lo up
binary=$(realpath "$1")
python=$(realpath -s "$2")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

echo "-- promtool: syntax, and each alert firing and not firing"
promtool check rules manifests/prometheus/rules.yaml
promtool check config --syntax-only manifests/prometheus/prometheus.yml
promtool test rules .ci/monitoring/rules.test.yaml

echo "-- promtool: the queries of the dashboard, without data, without requests, without faults"
"$python" .ci/monitoring/check.py --queries >"$work/queries.test.yaml"
promtool test rules "$work/queries.test.yaml"

echo "-- the metrics of a service that has scanned"
"$binary" --listen 127.0.0.1:0 2>"$work/log" &
for _ in $(seq 100); do
    address=$(sed -n 's/.*msg=listening address=\([^ ]*\).*/\1/p' "$work/log")
    [ -z "$address" ] || break
    sleep 0.05
done
# A label appears only after its first count.
for domain in 127.0.0.1 name.invalid; do
    curl -sS -o "$work/scan" "http://$address/open-ports?domain=$domain&toPort=9"
done
curl -sSf -o "$work/probe" "http://$address/probe?target=127.0.0.1&ports=1-10"
curl -sSf -o "$work/metrics" "http://$address/metrics"

echo "-- the dashboard and the alerts name existing metrics"
"$python" .ci/monitoring/check.py "$work/metrics" "$work/probe"
echo "-- each check detects its fault, for example a renamed metric"
"$python" .ci/monitoring/check.py --self-test "$work/metrics" "$work/probe"
