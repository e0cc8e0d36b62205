# Attacks on the real service, and a short soak. Only results that do not depend on the speed of the
# machine are checked; docs/testing.md has the times.
need slowhttptest slowhttptest
need curl curl
step abuse cargo bench --bench abuse -- --short --seconds 1 --jobs 4
step "release build" cargo build --release
step slowhttptest .ci/abuse/slowhttptest target/release/openports 4
step soak cargo bench --bench soak -- --seconds 20 --share 100
