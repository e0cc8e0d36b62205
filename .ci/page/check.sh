#!/usr/bin/env bash
# Runs .ci/page/check.py in the lab of benches/lab, which has loopback and one host with a few open
# ports and otherwise silent ones. One case then runs again with a host whose ports are all open.
# With PAGE_MEASURE=1, the script only measures the first paint and a scan in the page.
# With PAGE_SCREENSHOTS=write, it only writes the pictures of docs/page.
# Usage: .ci/page/check.sh BINARY AXE [CASE…]
set -euo pipefail
here=$(dirname "$0")
export PAGE_OPEN=22,80,443,1500,40050 PAGE_HOST=10.99.1.1
# The tests have already built the lab in this profile.
lab=(cargo bench --quiet --profile dev --bench lab -- --rtt 20ms)
if [ "${PAGE_SCREENSHOTS:-}" = write ]; then
    ports=21,22,25,53,80,110,143,443,587,993,3306,5432,6379,8080,8443,9090,9200,27017,32400,50051
    "${lab[@]}" --loss 1.5% --open "$ports" -- python3 "$here/pictures.py" "$@" docs/page
    ! command -v optipng >/dev/null || optipng -quiet docs/page/*.png
    hosts=$(mktemp)
    trap 'rm -f "$hosts"' EXIT
    echo "$PAGE_HOST shop.example" >"$hosts"
    "${lab[@]}" --open 22,80,443,5432,8080 -- python3 "$here/terminal.py" docs/page/scan.svg \
        "openports scan shop.example" "$1" scan --hosts "$hosts" shop.example
    exit
fi
if [ -n "${PAGE_MEASURE:-}" ]; then
    exec "${lab[@]}" --open "$PAGE_OPEN" -- python3 "$here/measure.py" "$@"
fi
"${lab[@]}" --open "$PAGE_OPEN" --rest silent -- python3 "$here/check.py" "$@"
[ $# -gt 2 ] || PAGE_SWEEP=$PAGE_HOST "${lab[@]}" --rest open -- python3 "$here/check.py" "$@" long_task
