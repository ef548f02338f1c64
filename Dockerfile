# The binary and nothing else that the build needs.
FROM rust:1-slim AS builder
# `--build-arg PROFILE=dev` builds faster and runs slower.
ARG PROFILE=release
WORKDIR /src
# Dependencies first, with nothing to use them: Docker keeps this layer while they stay. Benches
# are named in the manifest, so something must be there.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY third_party third_party
RUN mkdir src benches && touch src/lib.rs benches/hot.rs benches/instructions.rs && echo 'fn main() {}' | tee src/main.rs > build.rs \
    && cargo build --locked --profile ${PROFILE}
COPY . .
# Newer than what was built for want of them.
RUN touch build.rs src/main.rs src/lib.rs \
    && cargo install --locked --path . --root /out --profile ${PROFILE}

FROM debian:bookworm-slim
RUN useradd --uid 10001 --no-create-home bellwether \
    && install --directory --owner=bellwether --mode=0750 /data
COPY --from=builder /out/bin/bellwether /usr/local/bin/bellwether
USER bellwether
ENV DATA_DIR=/data PORT=4000
VOLUME /data
EXPOSE 4000
# SIGTERM drains the node's requests and hands its leadership over.
STOPSIGNAL SIGTERM
# Healthy: the node answers and knows a leader.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s \
    CMD bellwether status --endpoint "http://127.0.0.1:${PORT}"
ENTRYPOINT ["bellwether"]
CMD ["serve"]
