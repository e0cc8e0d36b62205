# The service alone: one static binary on nothing. No shell, no C library, no user but a number.
#
#   docker build -t openports .
#   docker buildx build --platform linux/amd64,linux/arm64 -t openports .
#
# The compiler runs on the builder's own platform and links for the target's with the linker that
# Rust brings along, so arm64 needs neither an emulator nor a C compiler for it. BUILD_IMAGE may
# be any image with cargo, rustup and cc. The same sources give the same bytes, wherever built. To
# label the image: --label org.opencontainers.image.revision=$(git rev-parse HEAD). The notices of
# the crates that are linked: docker run openports licenses.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
FROM --platform=$BUILDPLATFORM $BUILD_IMAGE AS build
ARG TARGETARCH
WORKDIR /src
# A lean image: optimised for size it is a fifth smaller, and a scan takes some 2 % more time.
ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
RUN case "$TARGETARCH" in \
        amd64) echo x86_64-unknown-linux-musl ;; \
        arm64) echo aarch64-unknown-linux-musl ;; \
        *) echo "no target for TARGETARCH=$TARGETARCH" >&2; exit 1 ;; \
    esac >/target && rustup target add "$(cat /target)"

# The dependencies are a layer of their own, which a change of the sources leaves alone.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs && \
    RUSTFLAGS="--remap-path-prefix=$CARGO_HOME=/cargo" \
    cargo build --release --locked --target "$(cat /target)" --lib

# Cargo goes by time, and the sources may be older than what stood in for them.
COPY docs docs
COPY src src
RUN touch src/lib.rs src/main.rs && \
    RUSTFLAGS="--remap-path-prefix=$CARGO_HOME=/cargo" \
    cargo build --release --locked --target "$(cat /target)" && \
    cp "target/$(cat /target)/release/openports" /openports

# Permitted, not effective: a container that is granted CAP_NET_RAW can raise it for SYN scans
# although its user is not root. In any other the binary starts all the same.
RUN command -v setcap >/dev/null || \
    { apt-get update && apt-get install -y --no-install-recommends libcap2-bin; } && \
    setcap cap_net_raw=p /openports

# Gathered here, so that the image has one layer whatever the builder makes of each COPY.
FROM scratch AS files
COPY --from=build /openports /openports
# What it is made of, where scanners of images look for it.
COPY manifests/package/openports.cdx.json /openports.cdx.json

FROM scratch
# CI compares it with Cargo.toml.
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="openports" \
      org.opencontainers.image.description="Finds a host's open TCP ports" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
COPY --from=files / /
# A number, so that `runAsNonRoot` can see that it is not root's.
USER 65532:65532
ENV OPENPORTS_LISTEN=[::]:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# Kubernetes has probes of its own and reads none of this.
HEALTHCHECK --interval=10s --timeout=3s --retries=3 CMD ["/openports", "healthcheck"]
ENTRYPOINT ["/openports"]
