"""Dockerfiles in the form in which the makers of a language tell their users to write theirs, in our own words: see :mod:`.projects`."""

from __future__ import annotations

from ..case import Case, File

_SCRIPT = "#!/bin/sh\nset -e\n"
#: "Compiles": joins its inputs into an executable script.
_COMPILER = File(
    _SCRIPT + 'out=a.out; while [ $# -gt 0 ]; do case $1 in -o) out=$2; shift 2;; -*) shift;; *) in="$in $1"; shift;; esac; done\n'
    '{ echo "#!/bin/sh"; cat $in; } > "$out"; chmod 755 "$out"\n',
    0o755,
)
_ENTRY = File(
    '#!/bin/sh\nset -e\n# first argument is a flag: it is one of the server\ncase "$1" in -*) set -- server "$@";; esac\nexec "$@"\n', 0o755
)

CASES = (
    Case(
        "project-node",
        r"""
# syntax=docker/dockerfile:1
ARG NODE_VERSION=22
FROM busybox AS base
WORKDIR /usr/src/app
ENV PATH=/usr/src/app/tools:$PATH
COPY --chmod=755 tools tools/

FROM base AS deps
RUN --mount=type=bind,source=package.json,target=package.json \
    --mount=type=bind,source=package-lock.json,target=package-lock.json \
    --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev

FROM deps AS build
RUN --mount=type=bind,source=package.json,target=package.json \
    --mount=type=bind,source=package-lock.json,target=package-lock.json \
    --mount=type=cache,target=/root/.npm \
    npm ci
COPY . .
RUN chmod +x tools/npm && npm run build

FROM base AS final
ARG NODE_VERSION
ENV NODE_ENV=production NODE_VERSION=$NODE_VERSION
USER web
COPY package.json .
COPY --from=deps /usr/src/app/node_modules ./node_modules
COPY --from=build /usr/src/app/dist ./dist
EXPOSE 3000
CMD npm start
""",
        {
            "package.json": '{"name": "page"}\n',
            "package-lock.json": '{"lockfileVersion": 3}\n',
            "src/index.js": "console.log(1)\n",
            ".dockerignore": "**/node_modules\n**/.git\n",
            "node_modules/stale/index.js": "old\n",
            "tools/npm": File(
                _SCRIPT
                + 'case "$1" in ci) mkdir -p node_modules/dep; cp package-lock.json node_modules/dep/; echo "$*" >> /root/.npm/log;;\n'
                "run) mkdir -p dist; cat src/*.js > dist/bundle.js;; esac\n",
                0o644,
            ),
        },
        features="project multi-stage mount-bind mount-cache",
        quick=True,
    ),
    Case(
        "project-go",
        r"""
# syntax=docker/dockerfile:1
ARG GO_VERSION=1.99
FROM --platform=$BUILDPLATFORM busybox AS build
WORKDIR /src
COPY --chmod=0755 gc /usr/local/bin/gc
RUN --mount=type=cache,target=/go/pkg/mod/ \
    --mount=type=bind,source=go.sum,target=go.sum \
    --mount=type=bind,source=go.mod,target=go.mod \
    mkdir -p /go/pkg/mod/cache && cat go.mod go.sum > /go/pkg/mod/cache/list
ARG TARGETARCH
ARG TARGETOS
RUN --mount=type=cache,target=/go/pkg/mod/ \
    --mount=type=bind,target=. \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH gc -o /bin/server ./cmd/server/main.go && test -s /go/pkg/mod/cache/list

FROM debian:bookworm AS final
ARG UID=10001
RUN adduser \
    --disabled-password \
    --gecos "" \
    --home "/nonexistent" \
    --shell "/sbin/nologin" \
    --no-create-home \
    --uid "${UID}" \
    appuser
USER appuser
COPY --from=build /bin/server /bin/
EXPOSE 8080
ENTRYPOINT [ "/bin/server" ]
""",
        {"gc": _COMPILER, "go.mod": "module example.org/server\n", "go.sum": "h1:=\n", "cmd/server/main.go": "echo served\n"},
        features="project multi-stage mount-bind mount-cache platform",
    ),
    Case(
        "project-django",
        r"""
FROM debian:bookworm AS builder
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=off
WORKDIR /app
COPY tools/pip /usr/local/bin/
RUN mkdir -p /opt/venv/bin
ENV PATH="/opt/venv/bin:$PATH" VIRTUAL_ENV=/opt/venv
COPY requirements/*.txt ./requirements/
RUN --mount=type=cache,target=/root/.cache/pip pip install -r requirements/production.txt

FROM debian:bookworm AS runtime
ARG APP_HOME=/app BUILD_ENVIRONMENT=production
ENV BUILD_ENV=${BUILD_ENVIRONMENT} PATH="/opt/venv/bin:${PATH}"
RUN addgroup --system django && adduser --system --ingroup django --no-create-home django
WORKDIR ${APP_HOME}
COPY --from=builder --chown=django:django /opt/venv /opt/venv
COPY --chown=django:django --chmod=755 compose/entrypoint /entrypoint
COPY --chown=django:django compose/start /start
RUN sed -i 's/\r$//g' /start && chmod +x /start
COPY --chown=django:django . ${APP_HOME}
RUN chown django:django ${APP_HOME}
USER django
RUN DATABASE_URL="" ./manage.py compilemessages
HEALTHCHECK --interval=30s --timeout=5s CMD ["curl", "-f", "http://localhost:5000/health/"]
EXPOSE 5000
ENTRYPOINT ["/entrypoint"]
CMD ["/start"]
""",
        {
            "tools/pip": File(
                _SCRIPT
                + 'mkdir -p "$VIRTUAL_ENV/lib"; sed "s/^/installed /" "$3" > "$VIRTUAL_ENV/lib/list"; echo x > /root/.cache/pip/x\n',
                0o755,
            ),
            "requirements/base.txt": "django\n",
            "requirements/production.txt": "-r base.txt\ngunicorn\n",
            "compose/entrypoint": '#!/bin/bash\nexec "$@"\n',
            "compose/start": "#!/bin/bash\r\nexec gunicorn\r\n",
            "manage.py": File(_SCRIPT + "echo compiled > messages.mo\n", 0o755),
            "app/__init__.py": "",
            "app/__pycache__/x.pyc": "x",
            ".dockerignore": "**/__pycache__\n.git*\n*.md\n",
            "README.md": "r",
        },
        features="project HEALTHCHECK chown chmod USER",
    ),
    Case(
        "project-java",
        r"""
FROM busybox AS deps
WORKDIR /build
COPY --chmod=0755 mvnw mvnw
COPY .mvn/ .mvn/
RUN --mount=type=bind,source=pom.xml,target=pom.xml \
    --mount=type=cache,target=/root/.m2 ./mvnw dependency:go-offline -DskipTests

FROM deps AS package
WORKDIR /build
COPY ./src src/
RUN --mount=type=bind,source=pom.xml,target=pom.xml \
    --mount=type=cache,target=/root/.m2 \
    ./mvnw package -DskipTests && \
    mv target/$(./mvnw -q name)-$(./mvnw -q version).jar target/app.jar

FROM package AS extract
WORKDIR /build
RUN mkdir -p target/extracted/dependencies target/extracted/application && \
    cp target/app.jar target/extracted/application/ && \
    echo lib > target/extracted/dependencies/lib.jar

FROM extract AS development
ENV JAVA_TOOL_OPTIONS -agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=*:8000
CMD [ "java", "-jar", "target/app.jar" ]

FROM debian:bookworm AS final
ARG UID=10001
RUN adduser --disabled-password --gecos "" --home "/nonexistent" --shell "/sbin/nologin" --no-create-home --uid "${UID}" appuser
USER appuser
COPY --from=extract build/target/extracted/dependencies/ ./
COPY --from=extract build/target/extracted/application/ ./
EXPOSE 8080
ENTRYPOINT [ "java", "-Dspring.profiles.active=postgres", "org.example.Launcher" ]
""",
        {
            "mvnw": File(
                _SCRIPT + 'case "$1$2" in dep*) mkdir -p /root/.m2; cat pom.xml > /root/.m2/seen;;\n'
                "package*) mkdir -p target; cat src/*.java > target/app-1.0.jar;;\n"
                "-qname) echo app;; -qversion) echo 1.0;; esac\n"
            ),
            ".mvn/wrapper.properties": "x=y\n",
            "pom.xml": "<project/>\n",
            "src/A.java": "class A {}\n",
        },
        features="project multi-stage from",
    ),
    Case(
        "project-ruby",
        r"""
# syntax = docker/dockerfile:1
ARG RUBY_VERSION=3.9
FROM debian:bookworm AS base
WORKDIR /rails
ENV RAILS_ENV="production" \
    BUNDLE_DEPLOYMENT="1" \
    BUNDLE_PATH="/usr/local/bundle" \
    BUNDLE_WITHOUT="development"

# thrown away: build tools stay out of what is shipped
FROM base AS build
COPY --chmod=755 bin/bundle /usr/bin/bundle
COPY Gemfile Gemfile.lock ./
RUN bundle install && \
    rm -rf ~/.bundle/ "${BUNDLE_PATH}"/ruby/*/cache "${BUNDLE_PATH}"/ruby/*/bundler/gems/*/.git
COPY . .
RUN chmod +x bin/* && \
    sed -i "s/\r$//g" bin/* && \
    sed -i 's/ruby\.exe$/ruby/' bin/*
RUN SECRET_KEY_BASE_DUMMY=1 ./bin/rails assets:precompile

FROM base
COPY --from=build "${BUNDLE_PATH}" "${BUNDLE_PATH}"
COPY --from=build /rails /rails
RUN groupadd --system --gid 1100 rails && \
    useradd rails --uid 1100 --gid 1100 --create-home --shell /bin/bash && \
    mkdir -p db log storage tmp && \
    chown -R rails:rails db log storage tmp
USER 1100:1100
ENTRYPOINT ["/rails/bin/docker-entrypoint"]
EXPOSE 3000
CMD ["./bin/rails", "server"]
""",
        {
            "bin/bundle": _SCRIPT
            + 'mkdir -p "$BUNDLE_PATH/ruby/3.9/cache" "$BUNDLE_PATH/ruby/3.9/gems"; echo gem > "$BUNDLE_PATH/ruby/3.9/gems/g"\n',
            "bin/rails": "#!/bin/sh\r\nmkdir -p public/assets; echo asset > public/assets/a.css # ruby.exe\r\n",
            "bin/docker-entrypoint": _ENTRY,
            "Gemfile": "source x\n",
            "Gemfile.lock": "GEM\n",
            "config/master.key": "k",
            ".dockerignore": "/config/master.key\n/log/*\n!/log/.keep\n",
            "log/.keep": "",
            "log/dev.log": "x",
        },
        features="project multi-stage USER chmod",
    ),
)
