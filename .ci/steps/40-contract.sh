# The contract, checked with the tools of other projects.
need curl curl
need prometheus prometheus
need ip iproute2
need unshare util-linux
if ! command -v schemathesis >/dev/null; then
    python3 -m venv target/contract
    target/contract/bin/pip install -q schemathesis
    PATH=$PWD/target/contract/bin:$PATH
fi
step "release build" cargo build --release
step contract .ci/contract/check target/release/openports "$(command -v schemathesis)"
