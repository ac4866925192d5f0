# aero-l2 as an OCI image. docs/containers.md: how to build it, how to run it, and what each flag is for.
# Needs BuildKit (DOCKER_BUILDKIT=1, docker buildx, podman build, buildah).
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${BASE_IMAGE} AS build
# A compiler only where python-pytun has no wheel; it stays in this stage.
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates python3 python3-venv && \
    if [ "$(dpkg --print-architecture)" != amd64 ]; then \
      apt-get install -y --no-install-recommends gcc libc6-dev python3-dev; \
    fi
WORKDIR /build
ENV PIP_CACHE_DIR=/var/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
COPY requirements.lock ./
COPY deploy/requirements.lock deploy/
# Secrets, both optional and in no layer: `pip`, a pip.conf (an index of your own); `ca`, the authorities to trust.
RUN --mount=type=secret,id=pip,target=/run/secrets/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    --mount=type=cache,target=/var/cache/pip \
    if [ -e /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi && \
    if [ -e /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi && \
    awk '/^(pip|setuptools)==/ { on = 1 } on { print } !/\\$/ { on = 0 }' requirements.lock >tools.lock && \
    python3 -m venv tools && tools/bin/pip install -q --require-hashes -r tools.lock && \
    python3 -m venv --without-pip /opt/aero-l2 && \
    tools/bin/pip --python /opt/aero-l2/bin/python install -q --no-deps --no-compile --require-hashes \
      -r deploy/requirements.lock
COPY pyproject.toml README.md LICENSE-MIT LICENSE-APACHE ./
COPY aero_l2 aero_l2
COPY netns netns
COPY slirp slirp
# The byte code is made here, for nothing can be written where it runs, and does not depend on files' times.
RUN tools/bin/pip wheel -q --no-deps --no-index --no-build-isolation --wheel-dir dist . && \
    tools/bin/pip --python /opt/aero-l2/bin/python install -q --no-deps --no-index --no-compile dist/*.whl && \
    /opt/aero-l2/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/aero-l2/lib

FROM ${BASE_IMAGE}
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates iproute2 nftables python3 slirp4netns tini && \
    apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/*.log && \
    groupadd --gid 10001 aero-l2 && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aero-l2
COPY deploy/seccomp-aero.json LICENSE-MIT LICENSE-APACHE /usr/share/aero-l2/
COPY --from=build /opt/aero-l2 /opt/aero-l2
# What /version says, and the labels. Blank: the version of the package, `dev`, and nothing.
ARG VERSION=
ARG GIT_SHA=
ARG BUILD_TIMESTAMP=
ENV PATH=/opt/aero-l2/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    AERO_L2_PROXY_VERSION=${VERSION} \
    AERO_L2_PROXY_GIT_SHA=${GIT_SHA} \
    AERO_L2_PROXY_BUILD_TIMESTAMP=${BUILD_TIMESTAMP}
LABEL org.opencontainers.image.title="aero-l2" \
      org.opencontainers.image.description="A network for virtual machines in browser tabs: Ethernet frames over WebSocket" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_SHA}" \
      org.opencontainers.image.created="${BUILD_TIMESTAMP}"
USER 10001:10001
EXPOSE 8090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 \
  CMD ["/opt/aero-l2/bin/python", "-I", "-m", "aero_l2.cli.health"]
# The first process stays in the container's user namespace, which rootless engines enter by it for `exec` and health
# checks; the supervisor moves into one of its own.
ENTRYPOINT ["tini", "--", "aero-l2"]
CMD ["serve"]
