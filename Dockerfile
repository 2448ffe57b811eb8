# personas with a Postgres of its own inside; set DATABASE_URL to use another one instead.
#
#   docker build -t personas .
#   docker run -p 8080:8080 -v personas:/var/lib/personas --shm-size 256m personas

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The cache mounts keep what was built between builds; the binary has to leave them.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin personas && cp target/release/personas /personas

FROM debian:bookworm-slim
# The package would otherwise make a cluster of its own. The account needs an entry in passwd: initdb asks for it.
RUN mkdir -p /etc/postgresql-common \
    && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       -o Dpkg::Options::=--force-confold ca-certificates postgresql-15 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/personas --shell /usr/sbin/nologin personas \
    && install -d -o personas -g personas -m 0700 /var/lib/personas
COPY --from=build /personas /usr/local/bin/personas

USER personas
WORKDIR /var/lib/personas
ENV PERSONAS_DATA_DIR=/var/lib/personas PERSONAS_LISTEN=0.0.0.0:8080
VOLUME /var/lib/personas
EXPOSE 8080
# SIGTERM drains, then stops Postgres: give `docker stop` time for both (--time 60).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD \
    ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200'"]
ENTRYPOINT ["personas"]
CMD ["serve"]
