#!/usr/bin/env bash
# Runs .ci/page/check.py in the lab of benches/lab: loopback, and one host that is silent on all
# ports but some. Then once more where all ports of the host are open, the most there is to show.
# With PAGE_SCREENSHOTS=write the pictures of docs/page are made anew.
# Usage: .ci/page/check.sh BINARY AXE [CASE…]
set -euo pipefail
here=$(dirname "$0")
export PAGE_OPEN=22,80,443,1500,40050 PAGE_HOST=10.99.1.1
lab=(cargo bench --quiet --bench lab -- --rtt 20ms)
"${lab[@]}" --open "$PAGE_OPEN" --rest silent -- python3 "$here/check.py" "$@"
[ $# -gt 2 ] || PAGE_SWEEP=$PAGE_HOST "${lab[@]}" --rest open -- python3 "$here/check.py" "$@" long_task
