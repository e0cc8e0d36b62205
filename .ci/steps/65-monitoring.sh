# The alerts, the dashboard, and the metrics that both use.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
need promtool prometheus
need curl curl
need ip iproute2
need unshare util-linux
[ -x target/monitoring/bin/python ] || python3 -m venv target/monitoring
target/monitoring/bin/python -c 'import yaml' 2>/dev/null ||
    target/monitoring/bin/pip install -q --disable-pip-version-check PyYAML
step "release build" cargo build --release
step monitoring .ci/monitoring/check.sh target/release/openports target/monitoring/bin/python
