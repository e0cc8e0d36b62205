# The checks of rustfmt, clippy and rustdoc.
for component in rustfmt clippy; do
    cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component"
done
step format cargo fmt --check
step clippy cargo clippy --all-targets -- -D warnings
step documentation env RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps
