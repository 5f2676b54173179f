"""RUN: what the step sees, its mounts and its network."""

from __future__ import annotations

from ..case import Case, File

CASES = (
    Case("run-exec", 'FROM busybox\nRUN ["/bin/sh", "-c", "echo $HOME > /r"]\nRUN ["touch", "/a b", "/$HOME"]\n', features="RUN"),
    Case(
        "run-changes",
        r"""
FROM busybox
RUN mkdir -p /d/e && echo 1 > /d/one && echo 2 > /d/e/two && ln /d/one /d/hard && ln -s one /d/soft && mkfifo /d/fifo && chmod 4711 /d/e/two
RUN rm -r /d/e && mkdir /d/e && touch -d @1000000000 /d/e/old
RUN mv /d /moved && ln -s moved /d && chown -R 5:6 /moved && touch /etc/passwd
RUN rm /bin/vi && mv /bin/ls /bin/list && chmod 700 /srv
RUN rm -rf /moved/e && echo file > /moved/e
RUN true
""",
        features="RUN",
        quick=True,
    ),
    Case(
        "run-etc-hosts",
        "FROM busybox\nRUN cat /etc/hosts > /dev/null; echo x >> /etc/added;\n"
        "RUN ls -A /etc | grep -v hostname > /list; ls -A /dev /proc /sys > /dev/null\n",
        features="RUN",
    ),
    Case("run-tmp", "FROM busybox\nRUN echo x > /tmp/kept; echo y > /dev/shm/gone; mkdir /run && echo z > /run/kept\n", features="RUN"),
    Case(
        "run-network-none",
        "FROM busybox\nRUN --network=none ls /sys/class/net > /n\nRUN --network=default true\nRUN --network=host echo host > /h\n",
        features="network",
    ),
    Case(
        "mount-bind",
        r"""
FROM busybox AS other
RUN mkdir /out && echo made > /out/made
FROM busybox
RUN --mount=type=bind,target=/ctx cat /ctx/a.txt > /1; ls -A /ctx > /list; touch /ctx/no 2>/dev/null || echo read-only > /ro
RUN --mount=type=bind,source=sub,target=/s,rw touch /s/new && ls /s > /2
RUN --mount=type=bind,from=other,source=/out,target=/out cp /out/made /3
RUN --mount=source=a.txt,target=/deep/in/file cat /deep/in/file > /4
WORKDIR /w
RUN --mount=target=rel,source=sub ls rel > /5
RUN --mount=type=bind,from=other,dst=/mnt,src=/out/made cat /mnt > /6
""",
        {"a.txt": "a\n", "sub/b": "b"},
        features="mount-bind from",
        quick=True,
    ),
    Case(
        "mount-cache",
        r"""
FROM busybox
RUN --mount=type=cache,target=/cache echo kept > /cache/f; stat -c '%a %u %g' /cache > /mode
RUN --mount=type=cache,target=/cache cat /cache/f > /seen
RUN --mount=type=cache,id=other,target=/cache,uid=1000,gid=50,mode=0750 ls -A /cache > /empty; stat -c '%a %u %g' /cache > /mode2
RUN --mount=type=cache,target=/cache,id=/cache,readonly cat /cache/f > /seen2; touch /cache/x 2>/dev/null || echo ro > /ro
RUN --mount=type=cache,target=/locked,sharing=locked --mount=type=cache,target=/private,sharing=private touch /locked/x /private/y
RUN --mount=type=cache,target=/from,from=parent-stage,source=/init ls /from > /from-list
FROM scratch AS parent-stage
COPY init /init
""".replace("FROM busybox\n", "FROM busybox AS main\n", 1).replace(
            "RUN --mount=type=cache,target=/from,from=parent-stage,source=/init ls /from > /from-list\n", ""
        ),
        {"init/x": "x"},
        target="main",
        features="mount-cache target",
        quick=True,
    ),
    Case(
        "mount-cache-from",
        "FROM scratch AS seed\nCOPY init /init\nFROM busybox\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=init ls -A /c > /list; cat /c/x > /x\n",
        {"init/x": "x"},
        features="mount-cache",
    ),
    Case(
        "mount-tmpfs",
        r"""
FROM busybox
RUN mkdir /t && echo below > /t/below
RUN --mount=type=tmpfs,target=/t ls -A /t > /list; echo x > /t/gone
RUN --mount=type=tmpfs,target=/new/t,size=1048576 echo x > /new/t/gone; df -k /new/t | awk 'NR==2{print $2}' > /size
""",
        features="mount-tmpfs",
    ),
    Case(
        "mount-secret",
        r"""
FROM busybox
RUN --mount=type=secret,id=token cat /run/secrets/token > /1; stat -c '%a %u %g' /run/secrets/token > /mode
RUN --mount=type=secret,id=token,target=/etc/token,mode=0440,uid=1000,gid=50 cat /etc/token > /2; stat -c '%a %u %g' /etc/token > /mode2
RUN --mount=type=secret,id=token,env=TOKEN echo "$TOKEN" > /3; ls /run/secrets 2>/dev/null > /none || true
RUN --mount=type=secret,id=nothing cat /run/secrets/nothing 2>/dev/null > /4 || echo none > /4
RUN --mount=type=secret,id=token,env=TOKEN,target=/both cat /both > /5; echo $TOKEN >> /5
""",
        secrets={"token": "s3cret"},
        features="mount-secret",
        quick=True,
    ),
    Case(
        "mount-ssh",
        r"""
FROM busybox
RUN --mount=type=ssh test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK" > /1
RUN --mount=type=ssh,target=/agent,mode=0666,uid=1000 test -S /agent && stat -c '%a %u' /agent > /2; echo $SSH_AUTH_SOCK >> /2
RUN echo "[$SSH_AUTH_SOCK]" > /3
""",
        ssh=True,
        features="mount-ssh",
        quick=True,
    ),
    Case(
        "mount-ssh-optional",
        'FROM busybox\nRUN --mount=type=ssh echo "[$SSH_AUTH_SOCK]" > /1\n',
        features="mount-ssh",
        but={"/1: content": "SSH_AUTH_SOCK is set there though there is no agent"},
    ),
    Case(
        "mount-several",
        r"""
FROM busybox
ARG WHERE=/from-arg
RUN --mount=type=cache,target=$WHERE --mount=type=bind,target=/src,source=. --mount=type=tmpfs,target=/tmp \
    --network=none cp /src/a.txt $WHERE/a && ls -A /tmp $WHERE > /r
RUN --mount=type=bind,target=/src <<EOF
cat /src/a.txt > /s
EOF
""",
        {"a.txt": "a"},
        features="mount-bind mount-cache mount-tmpfs heredoc",
    ),
    Case(
        "mount-over-existing",
        r"""
FROM busybox
RUN mkdir -p /srv/app && echo old > /srv/app/file && echo x > /srv/app/y
RUN --mount=type=bind,source=new,target=/srv/app/file cat /srv/app/file > /r
RUN --mount=type=bind,target=/srv/app ls /srv/app > /s; rm -rf /etc/added
""",
        {"new": "new\n"},
        features="mount-bind",
    ),
    Case("run-pipefail", 'FROM busybox\nSHELL ["/bin/sh", "-o", "pipefail", "-c"]\nRUN false | true\n', features="SHELL RUN", fails=True),
    Case("run-long", "FROM busybox\nRUN " + " && \\\n    ".join(f"echo line {n} >> /log" for n in range(60)) + "\n", features="RUN"),
    Case(
        "run-whiteouts",
        r"""
FROM busybox
COPY tree /tree
RUN rm /tree/a && mkdir /tree/a && touch /tree/a/inside
RUN rm -rf /tree/sub && ln -s /tree/a /tree/sub
RUN rm -rf /tree
RUN mkdir /tree && echo again > /tree/a
COPY tree/sub /tree/sub
""",
        {"tree/a": "a", "tree/sub/b": "b", "tree/sub/c": File("c", 0o600)},
        features="RUN COPY",
        quick=True,
    ),
)
