# Every answer, checked with h11, a strict client, and with redbot and httplint.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
if [ ! -x target/conformance/bin/redbot ]; then
    python3 -m venv target/conformance
    target/conformance/bin/pip install -q h11 redbot
fi
step "release build" cargo build --release
step conformance target/conformance/bin/python .ci/conformance/lint target/release/openports
