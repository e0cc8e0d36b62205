#!/usr/bin/env bash
# Checks the static binary, its bill of materials, and the Debian package, which must have the same
# bytes when it is built twice. .ci/container/build.sh checks that the bytes of the binary do not
# depend on the directory.
# Usage: .ci/package/build.sh PYTHON, with cyclonedx-python-lib installed
python=$(realpath -s "$1")
. "$(dirname "$0")/lib.sh"
digest() { sha256sum "$1" | cut -d ' ' -f 1; }

echo "-- the crate contains the files for users, and no others"
cargo package --list --allow-dirty >"$work/crate"
printed='docs/(completions/.*|licenses\.txt|openports\.1)'
wanted="^(src/.*|$printed|"'Cargo\.(toml|toml\.orig|lock)|LICENSE|README\.md|\.cargo_vcs_info\.json)$'
check "files that are not for users" "" \
    "$(grep -vE "$wanted" "$work/crate" || true; grep '^src/tests' "$work/crate" || true)"

echo "-- the static binary"
binary=$(manifests/package/binary)
check "linking" "*statically linked*" "$(ldd "$binary" 2>&1 || true; file -b "$binary")"
paths="$PWD|${CARGO_HOME:-$HOME/.cargo}|${RUSTUP_HOME:-$HOME/.rustup}"
check "paths of this machine in it" 0 "$(grep -caE "$paths" "$binary" || true)"

echo "-- the bill of materials"
manifests/package/sbom | diff manifests/package/openports.cdx.json - ||
    fail "manifests/package/sbom >manifests/package/openports.cdx.json brings it up to date"
"$python" - manifests/package/openports.cdx.json <<'P'
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(str(fault) if fault else 0)
P

echo "-- the package, made twice"
deb=$(manifests/package/deb "$binary" 2>/dev/null)
before=$(digest "$deb")
deb=$(manifests/package/deb "$binary" 2>/dev/null)
check "bytes" "$before" "$(digest "$deb")"
check "owners" "root/root" "$(dpkg-deb -c "$deb" | awk '{ print $2 }' | sort -u)"
