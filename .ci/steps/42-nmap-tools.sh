# The output of `--format xml`, read with nmap's own tools and with a library for nmap's files.
need xmllint libxml2-utils
need nmap nmap
need ndiff ndiff
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
if [ ! -x target/nmap-tools/bin/python ]; then
    python3 -m venv target/nmap-tools
    target/nmap-tools/bin/pip install -q python-libnmap
fi
step "release build" cargo build --release
step "nmap's tools read our XML" \
    .ci/contract/nmap-tools target/release/openports target/nmap-tools/bin/python
