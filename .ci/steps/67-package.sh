# The static binary, its bill of materials, and the Debian package in a container with systemd.
python3 -c 'import ensurepip' 2>/dev/null || need ensurepip python3 python3-venv
need cc build-essential
need ip iproute2
need file file
need mmdebstrap mmdebstrap
[ -x target/package-tools/bin/python ] || python3 -m venv target/package-tools
target/package-tools/bin/python -c 'import cyclonedx' 2>/dev/null ||
    target/package-tools/bin/pip install -q --disable-pip-version-check \
        'cyclonedx-python-lib[json-validation]==11.12.0'
step package .ci/package/build.sh target/package-tools/bin/python
step "package: installed" .ci/package/install.sh target/package/openports_*.deb
