"""Dockerfiles in the form in which well-known projects write theirs, in our own words, on bases that need no network.

Here: images of languages and servers, as they publish them. Applications are in :mod:`.applications`. What they fetch comes from the
tests' web server or the context; compilers and package managers are small scripts of the context.
"""

from __future__ import annotations

import hashlib

from ..case import Case, File
from .sources import archive

_SCRIPT = "#!/bin/sh\nset -e\n"
_ENTRY = File(
    '#!/bin/sh\nset -e\n# first argument is a flag: it is one of the server\ncase "$1" in -*) set -- server "$@";; esac\nexec "$@"\n', 0o755
)

_PYTHON = r"""
FROM debian:bookworm

# local installs come before the distribution's
ENV PATH=/usr/local/bin:$PATH
ENV LANG=C.UTF-8

ENV PYTHON_VERSION=3.99.1
ENV PYTHON_SHA256=%(sum)s

RUN --mount=type=bind,source=src,target=/src \
	set -eux; \
	\
	savedAptMark="$(apt-mark showmanual)"; \
	echo "$PYTHON_SHA256 */src/python.tar" | sha256sum -c -; \
	mkdir -p /usr/src/python; \
	tar --extract --directory /usr/src/python --strip-components=1 --file /src/python.tar; \
	cd /usr/src/python; \
	gnuArch="$(dpkg --print-architecture)"; \
	install -D -m 755 python /usr/local/bin/python3; \
	install -D -m 644 -t /usr/local/lib/python3 lib/*.py; \
	echo "$gnuArch" > /usr/local/lib/python3/arch; \
	cd /; \
	rm -rf /usr/src/python; \
	\
	find /usr/local -depth \
		\( \
			\( -type d -a \( -name test -o -name tests \) \) \
			-o \( -type f -a \( -name '*.pyc' -o -name '*.pyo' \) \) \
		\) -exec rm -rf '{}' + \
	; \
	apt-mark auto '.*' > /dev/null; \
	[ -z "$savedAptMark" ] || apt-mark manual $savedAptMark > /dev/null; \
	rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
	python3 --version

# names that people expect
RUN set -eux; \
	for src in python3; do \
		dst="$(echo "$src" | tr -d 3)"; \
		[ -s "/usr/local/bin/$src" ]; \
		[ ! -e "/usr/local/bin/$dst" ]; \
		ln -svT "$src" "/usr/local/bin/$dst"; \
	done

CMD ["python3"]
"""
_PYTHON_TAR = archive(
    ("python-3.99.1/python", "f", "#!/bin/sh\necho Python 3.99.1\n", 0o755), ("python-3.99.1/lib/os.py", "f", "# os\n", 0o644)
)

CASES = (
    Case(
        "project-python",
        _PYTHON % {"sum": hashlib.sha256(_PYTHON_TAR).hexdigest()},
        {"src/python.tar": _PYTHON_TAR},
        features="project RUN ENV mount-bind",
        quick=True,
    ),
    Case(
        "project-nginx",
        r"""
FROM debian:bookworm

LABEL maintainer="Somebody <somebody@example.org>"

ENV SERVER_VERSION   1.99.0
ENV PKG_RELEASE   1~bookworm

RUN --mount=type=bind,target=/context set -x \
# an own user before the packages make one
    && groupadd --system --gid 101 nginx \
    && useradd --system --gid nginx --no-create-home --home /nonexistent --comment "nginx user" --shell /bin/false --uid 101 nginx \
    && mkdir -p /etc/nginx/conf.d /var/log/nginx /usr/share/nginx/html \
    && nginxPackages=" \
        server=${SERVER_VERSION}-${PKG_RELEASE} \
    " \
    && echo "$nginxPackages" | xargs > /etc/nginx/packages \
    && cp /context/index.html /usr/share/nginx/html/ \
# log files are the container's own output
    && ln -sf /dev/stdout /var/log/nginx/access.log \
    && ln -sf /dev/stderr /var/log/nginx/error.log \
# a folder for what runs first
    && mkdir /docker-entrypoint.d \
    && rm -f /var/log/faillog /var/log/lastlog

COPY docker-entrypoint.sh /
COPY 10-listen.sh 20-envsubst.sh /docker-entrypoint.d/
ENTRYPOINT ["/docker-entrypoint.sh"]

EXPOSE 80

STOPSIGNAL SIGQUIT

CMD ["nginx", "-g", "daemon off;"]
""",
        {
            "index.html": "<h1>own page</h1>\n",
            "docker-entrypoint.sh": _ENTRY,
            "10-listen.sh": File(_SCRIPT, 0o755),
            "20-envsubst.sh": File(_SCRIPT, 0o755),
        },
        features="project STOPSIGNAL EXPOSE",
    ),
    Case(
        "project-redis",
        r"""
FROM debian:bookworm

# user and group first, so that their ids stay the same whatever is added later
RUN set -eux; \
	groupadd -r -g 999 redis; \
	useradd -r -g redis -u 999 redis

ENV REDIS_VERSION=9.9.1

RUN set -eux; \
	\
	mkdir -p /usr/src/redis; \
	printf '%s\n' 'protected-mode no' 'save ""' > /usr/src/redis/config; \
	grep -E '^protected-mode' /usr/src/redis/config; \
	sed -ri 's!^(protected-mode) no$!\1 yes!' /usr/src/redis/config; \
	mkdir -p /usr/local/bin; \
	printf '#!/bin/sh\necho server\n' > /usr/local/bin/redis-server; \
	chmod +x /usr/local/bin/redis-server; \
	cp /usr/src/redis/config /etc/redis.conf; \
	for tool in cli benchmark; do ln /usr/local/bin/redis-server "/usr/local/bin/redis-$tool"; done; \
	rm -r /usr/src/redis; \
	serverMd5="$(md5sum /usr/local/bin/redis-server | cut -d' ' -f1)"; export serverMd5; \
	find /usr/local/bin/redis* -maxdepth 0 -type f -not -name redis-server -exec sh -eux -c ' \
		md5="$(md5sum "$1" | cut -d" " -f1)"; \
		test "$md5" = "$serverMd5"; \
	' -- '{}' ';' -exec ln -svfT 'redis-server' '{}' ';'; \
	redis-server --version

RUN mkdir /data && chown redis:redis /data
VOLUME /data
WORKDIR /data

COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]

EXPOSE 6379
CMD ["redis-server"]
""",
        {"docker-entrypoint.sh": _ENTRY},
        features="project VOLUME WORKDIR",
    ),
    Case(
        "project-postgres",
        r"""
FROM debian:bookworm

# the owner of the data, with the number that everybody knows
RUN set -eux; \
	groupadd -r postgres --gid=999; \
	useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql --shell=/bin/bash postgres; \
	install --verbose --directory --owner postgres --group postgres --mode 1777 /var/lib/postgresql

ENV LANG en_US.utf8

RUN mkdir /docker-entrypoint-initdb.d

ENV PG_MAJOR 18
ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
ENV PG_VERSION 18.1-1.pgdg12+2

RUN set -eux; \
	mkdir -p "/usr/lib/postgresql/$PG_MAJOR/bin" /usr/share/postgresql; \
	printf '#!/bin/sh\necho "postgres (PostgreSQL) %s"\n' "$PG_VERSION" > "/usr/lib/postgresql/$PG_MAJOR/bin/postgres"; \
	chmod 755 "/usr/lib/postgresql/$PG_MAJOR/bin/postgres"; \
	printf '#listen_addresses = '"'localhost'"'\n' > /usr/share/postgresql/postgresql.conf.sample; \
	postgres --version

# the sample listens everywhere: the container's network decides
RUN set -eux; \
	dpkg-divert --add --rename --divert "/usr/share/postgresql/postgresql.conf.sample.dpkg" \
		"/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"; \
	sed -ri "s!^#?(listen_addresses)\s*=\s*\S+.*!\1 = '*'!" /usr/share/postgresql/postgresql.conf.sample; \
	grep -F "listen_addresses = '*'" /usr/share/postgresql/postgresql.conf.sample

RUN install --verbose --directory --owner postgres --group postgres --mode 3777 /var/run/postgresql

ENV PGDATA /var/lib/postgresql/18/docker
VOLUME /var/lib/postgresql

COPY docker-entrypoint.sh docker-ensure-initdb.sh /usr/local/bin/
RUN ln -sT docker-ensure-initdb.sh /usr/local/bin/docker-enforce-initdb.sh
ENTRYPOINT ["docker-entrypoint.sh"]

STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
""",
        {"docker-entrypoint.sh": _ENTRY, "docker-ensure-initdb.sh": File(_SCRIPT, 0o755)},
        features="project ENV VOLUME",
    ),
    Case(
        "project-php",
        r"""
FROM debian:bookworm

# nothing of the distribution's own PHP may come in
RUN set -eux; \
	{ \
		echo 'Package: php*'; \
		echo 'Pin: release *'; \
		echo 'Pin-Priority: -1'; \
	} > /etc/apt/preferences.d/no-debian-php

ENV PHPIZE_DEPS \
		autoconf \
		dpkg-dev \
		g++

ENV PHP_INI_DIR /usr/local/etc/php
RUN set -eux; \
	mkdir -p "$PHP_INI_DIR/conf.d"; \
	[ ! -d /var/www/html ]; \
	mkdir -p /var/www/html; \
	chown www-data:www-data /var/www/html; \
	chmod 1777 /var/www/html

ENV APACHE_CONFDIR /etc/apache2
ENV APACHE_ENVVARS $APACHE_CONFDIR/envvars
RUN set -eux; \
	mkdir -p "$APACHE_CONFDIR/conf-available" "$APACHE_CONFDIR/conf-enabled"; \
	echo 'export APACHE_RUN_USER=www-data' > "$APACHE_ENVVARS"; \
	sed -ri 's/^export ([^=]+)=(.*)$/: ${\1:=\2}\nexport \1/' "$APACHE_ENVVARS"; \
	. "$APACHE_ENVVARS"; \
	for dir in \
		/var/lock/apache2 \
		/var/run/apache2 \
		/var/log/apache2 \
	; do \
		rm -rvf "$dir"; \
		mkdir -p "$dir"; \
		chown "$APACHE_RUN_USER:www-data" "$dir"; \
		chmod 1777 "$dir"; \
	done; \
	ln -sfT /dev/stderr /var/log/apache2/error.log; \
	chown -R --no-dereference www-data:www-data /var/log/apache2

RUN { \
		echo '<FilesMatch \.php$>'; \
		echo '\tSetHandler application/x-httpd-php'; \
		echo '</FilesMatch>'; \
	} | tee "$APACHE_CONFDIR/conf-available/docker-php.conf" \
	&& ln -s ../conf-available/docker-php.conf "$APACHE_CONFDIR/conf-enabled/"

ENV PHP_CFLAGS="-fstack-protector-strong -fpic"
ENV PHP_CPPFLAGS="$PHP_CFLAGS" PHP_LDFLAGS="-Wl,-O1 -pie"
COPY docker-php-* /usr/local/bin/
ENTRYPOINT ["docker-php-entrypoint"]
STOPSIGNAL SIGWINCH
COPY apache2-foreground /usr/local/bin/
WORKDIR /var/www/html
EXPOSE 80
CMD ["apache2-foreground"]
""",
        {"docker-php-entrypoint": _ENTRY, "docker-php-ext-install": File(_SCRIPT, 0o755), "apache2-foreground": File(_SCRIPT, 0o755)},
        features="project ENV WORKDIR",
    ),
)
