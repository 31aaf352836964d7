# The container image: one static program, the certificate authorities of the web, and nothing else.
#
#   docker build --tag mxgate .
#
# Base images are named by tag. Pin them by digest (tag@sha256:...) where your builds are made; which digests are
# right can only be said by who can reach the registry. See docs/container.md.

FROM docker.io/library/rust:1.95.0-trixie AS build
WORKDIR /src

# First the dependencies with an empty mxgate: this layer is made anew only when Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY benches benches
COPY pgo pgo
# pgo/build makes a static program, so that the image needs no C library, on x86_64 and aarch64 alike:
# `docker build --platform linux/arm64` runs these same lines on that platform.
RUN mkdir src \
 && echo '//! Empty.' > src/lib.rs \
 && printf '//! Empty.\nfn main() {}\n' > src/main.rs \
 && pgo/build --dependencies \
 && rm -r src

COPY src src
# Cargo compares time stamps, and the sources may be older than the empty ones.
RUN touch src/lib.rs src/main.rs \
 && program=$(pgo/build) \
 && install -D "$program" /image/mxgate

# The rest of the final image, made here because there is no shell in it.
# nsswitch.conf: a static program can look names up in files and by DNS; any other source would be a shared library.
RUN install -D -m 0444 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
 && echo 'mxgate:x:65532:65532:mxgate:/nonexistent:/nonexistent' > /image/etc/passwd \
 && echo 'mxgate:x:65532:' > /image/etc/group \
 && install -d /image/etc/mxgate /image/run/secrets \
 && install -d -m 0700 -o 65532 -g 65532 /image/run/mxgate /image/var/lib/mxgate

FROM scratch
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="mxgate" \
      org.opencontainers.image.description="A gateway between a company's services and MX: they send no credentials, mxgate attaches the right one." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image /

# A number, so that an orchestrator can see that it is not root's (runAsNonRoot).
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/mxgate", "health"]
ENTRYPOINT ["/mxgate"]
CMD ["run"]
