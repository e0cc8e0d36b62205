# The image of the service: one static binary in an empty image, without a shell, a C library or a
# list of users.
#
#   docker build -t openports .
#   docker buildx build --platform linux/amd64,linux/arm64 -t openports .
#
# The compiler runs on the platform of the builder, and links for the target with the linker that is
# part of Rust, so arm64 needs neither an emulator nor a C compiler. BUILD_IMAGE may be any image
# with Rust 1.93 or later, rustup and cc. The same sources give the same bytes on every machine. This
# flag labels the image with the commit: --label org.opencontainers.image.revision=$(git rev-parse
# HEAD). This command prints the notices of the linked crates: docker run openports licenses.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
FROM --platform=$BUILDPLATFORM $BUILD_IMAGE AS build
ARG TARGETARCH
WORKDIR /src
# The binary is optimised for size: it is a fifth smaller, and a scan takes some 2 % more time. The
# options of the linker are those of manifests/package/binary.
ENV CARGO_PROFILE_RELEASE_OPT_LEVEL=s \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
RUN [ "$(rustc -V | cut -d . -f 2)" -ge 93 ] || { echo "needs Rust 1.93 or later" >&2; exit 1; }; \
    case "$TARGETARCH" in \
        amd64) echo x86_64-unknown-linux-musl ;; \
        arm64) echo aarch64-unknown-linux-musl ;; \
        *) echo "no target for TARGETARCH=$TARGETARCH" >&2; exit 1 ;; \
    esac >/target && rustup target add "$(cat /target)"

# The dependencies have their own layer, which is not rebuilt when only the sources change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && touch src/lib.rs && echo 'fn main() {}' >src/main.rs && \
    RUSTFLAGS="-C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr \
        --remap-path-prefix=$CARGO_HOME=/cargo" \
    cargo build --release --locked --target "$(cat /target)" --lib

# `touch` is needed because cargo compares times, and the sources may be older than the placeholders
# above.
COPY docs docs
COPY src src
RUN touch src/lib.rs src/main.rs && \
    RUSTFLAGS="-C link-arg=--icf=all -C link-arg=--pack-dyn-relocs=relr \
        --remap-path-prefix=$CARGO_HOME=/cargo" \
    cargo build --release --locked --target "$(cat /target)" && \
    cp "target/$(cat /target)/release/openports" /openports

# The capability is permitted, but not effective: in a container with CAP_NET_RAW, the service can
# raise it for SYN scans although its user is not root. In other containers the binary also starts.
RUN command -v setcap >/dev/null || \
    { apt-get update && apt-get install -y --no-install-recommends libcap2-bin; } && \
    setcap cap_net_raw=p /openports

# This stage collects the files, so that the image has one layer, even if the builder makes a layer
# of each COPY.
FROM scratch AS files
COPY --from=build /openports /openports
# The bill of materials, at a path where scanners of images find it.
COPY manifests/package/openports.cdx.json /openports.cdx.json

FROM scratch
# CI compares the version with Cargo.toml.
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="openports" \
      org.opencontainers.image.description="Finds a host's open TCP ports" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION"
COPY --from=files / /
# The user is a number, so that `runAsNonRoot` can verify that it is not root.
USER 65532:65532
ENV OPENPORTS_LISTEN=[::]:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
# Kubernetes ignores this and has its own probes.
HEALTHCHECK --interval=10s --timeout=3s --retries=3 CMD ["/openports", "healthcheck"]
ENTRYPOINT ["/openports"]
