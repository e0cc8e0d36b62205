# The functions that both package tests share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$PWD/target/ci-package
mkdir -p "$work"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# check WHAT EXPECTED ACTUAL: the actual text matches the expected pattern of bash's `[[ == ]]`.
check() {
    # shellcheck disable=SC2053
    [[ $3 == $2 ]] || fail "$1: expected $2, got: $3"
    echo "   $1: ${3:0:140}"
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
