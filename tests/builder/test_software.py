"""Real software, built from Dockerfiles as its users write them, on a real Debian: built, started, asked, stopped.

``make test-software`` builds all of it (some ten minutes, most of it apt and npm); without ``PYCONTAINERS_SOFTWARE=1`` the first two.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pycontainers.engines.native import NativeEngine
from pycontainers.errors import ContainersError
from pycontainers.events import StepFinished, StepOutput, finish
from pycontainers.images import bootstrap, suites
from pycontainers.paths import Paths
from pycontainers.protocol import BootstrapRequest, BuildRequest, ContainerConfig, ExecConfig, Port

BASE = "debian:bookworm"
_APT = "RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \\\n"
_APT += "    rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update -qq && \\\n"
_APT += "    apt-get install -y -qq --no-install-recommends {} >/dev/null\n"


@dataclass(frozen=True)
class Software:
    """``ask`` gets the address of the container's port, and the container to exec in; it raises as long as there is no right answer."""

    name: str
    dockerfile: str
    files: dict[str, str]
    port: int
    ask: Callable[[NativeEngine, str, str, int], None]
    stop_signal: str = ""
    env: dict[str, str] = field(default_factory=dict)


def _web(text: bytes) -> Callable[[NativeEngine, str, str, int], None]:
    def ask(engine: NativeEngine, container: str, host: str, port: int) -> None:
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as answer:
            assert text in answer.read()

    return ask


def _redis(engine: NativeEngine, container: str, host: str, port: int) -> None:
    with socket.create_connection((host, port), 5) as conn:
        conn.sendall(b"SET visits 41\r\nINCR visits\r\n")
        said = b""
        while b":42\r\n" not in said:
            got = conn.recv(100)
            assert got, said
            said += got


def _postgres(engine: NativeEngine, container: str, host: str, port: int) -> None:
    said: list[bytes] = []
    query = ("psql", "-h", "127.0.0.1", "-U", "app", "-Atc", "SELECT name FROM beverages ORDER BY name", "shop")
    code = engine.exec(container, ExecConfig(query, env={"PGPASSWORD": "secret"}), on_output=lambda stream, data: said.append(data)).code
    assert (code, b"".join(said)) == (0, b"coffee\ntea\n")


SOFTWARE = [
    Software("redis", f"FROM {BASE}\n" + _APT.format("redis-server") + """\
RUN sed -i -e 's/^bind .*/bind 0.0.0.0/; s/^daemonize .*/daemonize no/; s/^protected-mode .*/protected-mode no/' \\
        -e '/^logfile/d; /^pidfile/d' /etc/redis/redis.conf
VOLUME /var/lib/redis
USER redis
EXPOSE 6379
HEALTHCHECK --interval=2s --start-period=1s CMD redis-cli ping | grep PONG
ENTRYPOINT ["redis-server", "/etc/redis/redis.conf"]
""", {}, 6379, _redis),
    Software("c", f"FROM {BASE} AS build\n" + _APT.format("gcc libc6-dev make") + """\
WORKDIR /src
COPY Makefile *.c ./
RUN --mount=type=tmpfs,target=/tmp make
FROM scratch
COPY --from=build --chmod=0555 /src/serve /serve
EXPOSE 8080
STOPSIGNAL SIGINT
ENTRYPOINT ["/serve"]
CMD ["8080"]
""", {
        "Makefile": "serve: serve.c\n\tgcc -O2 -static -Wall -o $@ $<\n",
        "serve.c": r"""
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
int main(int argc, char **argv) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    const char *answer = "HTTP/1.0 200 OK\r\nContent-Length: 15\r\n\r\nhello from C 42";
    signal(SIGINT, end); /* process 1 has no default action */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (argc < 2 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8)) return 1;
    for (;;) {
        char request[4096];
        int client = accept(listener, 0, 0);
        if (client < 0 || read(client, request, sizeof request) < 0 || write(client, answer, strlen(answer)) < 0) return 2;
        shutdown(client, SHUT_WR);
        close(client);
    }
}
""",
    }, 8080, _web(b"hello from C 42")),
    Software("python", f"FROM {BASE} AS base\n" + _APT.format("python3-venv ca-certificates") + """\
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip python3 -m venv /venv && pip install -q -r requirements.txt
RUN useradd --system --uid 900 app
COPY --chown=app app.py .
USER app
EXPOSE 8000
STOPSIGNAL SIGINT
CMD ["waitress-serve", "--port=8000", "app:app"]
""", {
        "requirements.txt": "flask\nwaitress\n",
        "app.py": "from flask import Flask\napp = Flask(__name__)\n\n@app.get('/')\ndef home():\n    return 'hello from flask'\n",
    }, 8000, _web(b"hello from flask")),
    Software("nginx", f"FROM {BASE}\n" + _APT.format("nginx-light") + """\
RUN ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
COPY <<PAGE /var/www/html/index.html
<h1>a page of our own</h1>
PAGE
EXPOSE 80
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
""", {}, 80, _web(b"a page of our own")),
    Software("postgres", f"FROM {BASE}\n" + _APT.format("postgresql") + r"""
ENV PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:$PATH
USER postgres
COPY --chown=postgres schema.sql /docker-entrypoint-initdb.d/
RUN <<SETUP
    set -eu
    initdb -D "$PGDATA" --auth-host=scram-sha-256 >/dev/null
    pg_ctl -D "$PGDATA" -w -o "-c listen_addresses=''" start >/dev/null
    psql -qc "CREATE USER app PASSWORD 'secret'" -c "CREATE DATABASE shop OWNER app"
    psql -qd shop -f /docker-entrypoint-initdb.d/schema.sql
    pg_ctl -D "$PGDATA" -w stop >/dev/null
SETUP
EXPOSE 5432
STOPSIGNAL SIGINT
CMD ["postgres"]
""", {"schema.sql": "CREATE TABLE beverages (name text);\nINSERT INTO beverages VALUES ('tea'), ('coffee');\n"
                    "GRANT SELECT ON beverages TO app;\n"}, 5432, _postgres),
    Software("node", f"FROM {BASE} AS build\n" + _APT.format("nodejs npm ca-certificates") + """\
WORKDIR /site
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-audit --no-fund
COPY . .
RUN npm run build
"""  f"FROM {BASE}\n" + _APT.format("nginx-light") + """\
COPY --from=build /site/dist /var/www/html
CMD ["nginx", "-g", "daemon off;"]
""", {
        "page.md": "# made by npm\n",
        ".dockerignore": "node_modules\ndist\n",
        "package.json": '{"name": "site", "version": "1.0.0", "dependencies": {"marked": "4.3.0"},'
                        ' "scripts": {"build": "mkdir -p dist && marked -i page.md -o dist/index.html"}}\n',
        "package-lock.json": """{
  "name": "site", "version": "1.0.0", "lockfileVersion": 2, "requires": true,
  "packages": {
    "": {"name": "site", "version": "1.0.0", "dependencies": {"marked": "4.3.0"}},
    "node_modules/marked": {
      "version": "4.3.0",
      "integrity": "sha512-PRsaiG84bK+AMvxziE/lCFss8juXjNaWzVbN5tXAm4XjeaS9NAHhop+PjQxz2A9h8Q4M/xGmzP8vqNwy6JeK0A==",
      "bin": {"marked": "bin/marked.js"}, "engines": {"node": ">= 12"}
    }
  }
}
""",
    }, 80, _web(b"made by npm")),
]  # fmt: skip


@pytest.fixture(scope="module")
def debian(state: Paths) -> Iterator[None]:
    """The base image, made once."""
    if os.geteuid() != 0 or not shutil.which("mmdebstrap", path=bootstrap.PATH):
        pytest.skip("needs root and mmdebstrap (apt-get install mmdebstrap)")
    try:
        suites.releases(suites.DISTRIBUTIONS["debian"], "bookworm", "amd64")
    except ContainersError as error:
        pytest.skip(f"no mirror of Debian's answers here: {error.message}")
    engine = NativeEngine(state)
    finish(engine.bootstrap(BootstrapRequest(BASE)))
    yield
    engine.remove_image(BASE, force=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("software", SOFTWARE if os.environ.get("PYCONTAINERS_SOFTWARE") else SOFTWARE[:2], ids=lambda one: one.name)
def test_it_is_built_started_asked_and_stopped(software: Software, engine: NativeEngine, debian: None, tmp_path: Path) -> None:
    for name, text in software.files.items():
        (tmp_path / name).write_text(text)
    request = BuildRequest(software.dockerfile, str(tmp_path), (f"made-{software.name}",), host_certificates=True)
    events, work = [], engine.build(request)
    try:
        while True:
            events.append(next(work))
    except StopIteration as stop:
        image = stop.value
    except ContainersError:
        print(b"".join(event.data for event in events if isinstance(event, StepOutput)).decode(errors="replace"))
        raise
    again = engine.build(request)
    assert all(event.cached for event in again if isinstance(event, StepFinished))
    info = engine.create(ContainerConfig(image.id, ports=(Port(software.port, host_ip="127.0.0.1"),), env=software.env))
    try:
        engine.start(info.id)
        deadline = time.monotonic() + 60
        bound = engine.find(info.id).ports[0]
        while True:
            try:
                software.ask(engine, info.id, "127.0.0.1", bound.host_port)
                break
            except (OSError, AssertionError):
                assert engine.find(info.id).status == "running", b"".join(line.data for line in engine.logs(info.id))
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        started = time.monotonic()
        engine.stop(info.id)
        assert time.monotonic() - started < 9 and engine.find(info.id).status == "exited"  # it heard its signal: nobody had to kill it
    finally:
        engine.remove(info.id, force=True)
    engine.remove_image(image.id, force=True)
