# The page in Debian's chromium, in the network of the lab.
need chromium chromium
need python3 python3
need npm npm
need curl curl
if [ ! -f target/page/package/axe.min.js ]; then
    mkdir -p target/page
    (cd target/page && npm pack --silent axe-core@4.10.3 && tar xzf axe-core-4.10.3.tgz)
fi
step "release build" cargo build --release
step page .ci/page/check.sh target/release/openports target/page/package/axe.min.js
step "page states" python3 .ci/page/states.py target/page/states
