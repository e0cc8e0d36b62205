# Attacks on the real service, and a short soak: what is not a time. The times are in docs/testing.md.
need slowhttptest slowhttptest
need curl curl
step abuse cargo bench --bench abuse -- --short --seconds 1 --jobs 4
step "release build" cargo build --release
step slowhttptest .ci/abuse/slowhttptest target/release/openports 4
step soak cargo bench --bench soak -- --seconds 20 --share 100
