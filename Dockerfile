# Graft in a container: built with the steps of Scripts/setup, run as a user without rights.
#   docker build -t graft .
#   docker run -p 8080:8080 -v /etc/graft/tls:/tls:ro -e GRAFT_SERVER_TLS_CERTIFICATE=/tls/cert.pem -e GRAFT_SERVER_TLS_PRIVATE_KEY=/tls/key.pem \
#     -v graft-models:/graft/Models -v graft-data:/graft/Data -v graft-adapters:/graft/Adapters graft
# Without a certificate the server does not start, unless it is told that clear text is safe there, because only this machine reaches the port:
#   docker run -p 127.0.0.1:8080:8080 -e GRAFT_SERVER_INSECURE_LISTEN=true -v … graft
# The user with id 999 must be able to read the key. `docker kill -s HUP` makes the server read both files again.
# The first start fetches the default model into its volume; the other two keep what is published, and belong together.
FROM swift:6.3-bookworm AS build
WORKDIR /build
COPY Scripts/setup Scripts/setup
RUN Scripts/setup
COPY Package.swift ./
COPY Sources Sources
COPY Tests Tests
RUN swift build -c release --product graft --static-swift-stdlib

FROM debian:bookworm-slim
WORKDIR /graft
COPY Scripts/setup Scripts/setup
RUN Scripts/setup runtime && rm -rf /var/lib/apt/lists/* && useradd --system --uid 999 --home-dir /graft graft
COPY --from=build /build/.build/release/graft /usr/local/bin/graft
COPY Config Config
COPY --chown=graft Models/catalog.json Models/catalog.json
RUN mkdir Data Adapters && chown graft Models Data Adapters
USER graft
EXPOSE 8080
STOPSIGNAL SIGTERM
# Inside a container only the address of all interfaces can be reached from outside; what the host exposes is the -p option's choice, which the server
# cannot see: hence it asks for a certificate or for GRAFT_SERVER_INSECURE_LISTEN.
# The server wants an API key there. Make the first one in the volume that the server gets: docker run --rm -v graft-data:/graft/Data IMAGE graft keys create NAME
CMD ["sh", "-c", "graft pull \"${GRAFT_MODEL:-smollm2-135m-instruct}\" && exec graft serve --host 0.0.0.0"]
