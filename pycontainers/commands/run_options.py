"""The options of ``run`` and ``create``, each declared once; names and meanings are Docker's."""

from __future__ import annotations

from .declare import Option
from .limits import CREATION_LIMIT_OPTIONS, LIMIT_OPTIONS
from .settings import RESTARTS

#: shared with ``update``
RESTART = Option(
    ("--restart",), "start it again when it ends: no, on-failure[:N], always or unless-stopped", "POLICY", completes="|".join(RESTARTS)
)

_ENVIRONMENT = (
    Option(("--env", "-e"), "environment variable NAME=VALUE, or NAME for this process's own value", "ENV", many=True),
    Option(("--env-file",), "read environment variables from a file", "FILE", many=True, host_path="whole", completes="file"),
    Option(("--workdir", "-w"), "working directory inside", "FOLDER"),
    Option(("--entrypoint",), "replace the image's entrypoint; '' clears it", "COMMAND"),
    Option(("--user", "-u"), "user inside: NAME or UID[:GID]", "USER"),
    Option(("--group-add",), "one more group of the user: NAME or GID", "GROUP", many=True),
    Option(("--label", "-l"), "label NAME=VALUE", "LABEL", many=True),
    Option(("--label-file",), "read labels from a file", "FILE", many=True, host_path="whole", completes="file"),
    Option(("--annotation",), "annotation of the OCI spec NAME=VALUE", "ANNOTATION", many=True),
)
_STORAGE = (
    Option(
        ("--volume", "-v"),
        "mount a folder or file: SOURCE:TARGET[:ro][,rslave|rshared|z|Z]",
        "VOLUME",
        many=True,
        host_path="volume",
        completes="file",
    ),
    Option(
        ("--mount",),
        "type=bind,source=…,target=…[,readonly][,bind-propagation=…][,bind-recursive=…] "
        "or type=tmpfs,target=…[,tmpfs-size=…][,tmpfs-mode=…]",
        "MOUNT",
        many=True,
        host_path="mount",
    ),
    Option(("--tmpfs",), "mount a tmpfs: TARGET[:size=64m,mode=1777,exec]", "TARGET", many=True),
    Option(("--shm-size",), "size of /dev/shm (default 64m)", "SIZE"),
    Option(("--read-only",), "the root file system cannot be written"),
    Option(("--device",), "give it a device, or those of a folder: PATH[:PATH_INSIDE][:rwm]", "DEVICE", many=True, completes="file"),
    Option(("--device-cgroup-rule",), "allow devices that are not there yet: 'c 42:* rmw'", "RULE", many=True),
)
_NETWORK = (
    Option(("--network", "--net"), "bridge, none, host or container:NAME", "NETWORK", completes="bridge|none|host"),
    Option(("--publish", "-p"), "publish a port: [[IP:]HOSTPORT:]PORT[/PROTO]; on 127.0.0.1 unless IP is given", "PORT", many=True),
    Option(("--publish-all", "-P"), "publish every exposed port on a free one"),
    Option(("--expose",), "port that the container listens on, for --publish-all: PORT[/PROTO]", "PORT", many=True),
    Option(("--hostname", "-h"), "host name inside", "NAME"),
    Option(("--domainname",), "NIS domain name inside", "NAME"),
    Option(("--add-host",), "line in /etc/hosts: NAME:IP; host-gateway stands for this machine", "HOST", many=True),
    Option(("--dns",), "name server, instead of this machine's", "IP", many=True),
    Option(("--dns-search",), "domain in which names are looked for; . for none", "DOMAIN", many=True),
    Option(("--dns-option", "--dns-opt"), "option of resolv.conf: ndots:2", "OPTION", many=True),
)
_ISOLATION = (
    Option(("--userns",), "auto (root inside is not root outside) or host", "MODE", completes="auto|host"),
    Option(("--pid",), "host or container:NAME, instead of its own processes alone", "MODE", completes="host"),
    Option(
        ("--ipc",),
        "private, shareable, none (no /dev/shm), host or container:NAME",
        "MODE",
        completes="private|shareable|none|host",
    ),
    Option(("--uts",), "host or container:NAME, instead of a host name of its own", "MODE", completes="host"),
    Option(("--cgroupns",), "private or host", "MODE", completes="private|host"),
    Option(("--privileged",), "all capabilities, no seccomp filter, nothing masked, all devices"),
    Option(("--cap-add",), "add a capability: NET_ADMIN, or ALL", "CAPABILITY", many=True),
    Option(("--cap-drop",), "take away a capability, or ALL", "CAPABILITY", many=True),
    Option(
        ("--security-opt",),
        "no-new-privileges, seccomp=unconfined|builtin|FILE, apparmor=…, label=…, systempaths=unconfined or writable-cgroups=true",
        "OPTION",
        many=True,
    ),
    Option(("--sysctl",), "kernel setting of its own namespaces: net.core.somaxconn=1024", "SYSCTL", many=True),
    Option(("--ulimit",), "resource limit: nofile=1024[:2048], -1 is unlimited", "ULIMIT", many=True),
    Option(("--oom-score-adj",), "how readily it is killed when memory runs out (-1000 to 1000)", "NUMBER"),
    Option(("--require-isolation",), "refuse where isolation is weaker than this", "LEVEL", completes="full"),
)
_LIFE = (
    Option(("--interactive", "-i"), "keep stdin open"),
    Option(("--tty", "-t"), "on a terminal of its own"),
    Option(("--init",), "a small init as process 1: it reaps zombies and forwards signals"),
    Option(("--rm",), "remove the container when it has ended"),
    Option(("--replace",), "remove another container of this name first"),
    RESTART,
    Option(
        ("--lifetime",),
        "detached (until it ends), kernel (ends with this notebook's kernel) or server (with the Jupyter server)",
        "LIFETIME",
        completes="detached|kernel|server",
    ),
    Option(("--stop-signal",), "signal that asks it to stop", "SIGNAL"),
    Option(("--stop-timeout",), "seconds from the stop signal to SIGKILL (default 10)", "SECONDS"),
    Option(("--health-cmd",), "command that tells whether it is healthy (exit code 0)", "COMMAND"),
    Option(("--health-interval",), "time between two checks (default 30s)", "TIME"),
    Option(("--health-timeout",), "time that a check may take (default 30s)", "TIME"),
    Option(("--health-retries",), "failures in a row that make it unhealthy (default 3)", "NUMBER"),
    Option(("--health-start-period",), "time from the start in which failures do not count", "TIME"),
    Option(("--health-start-interval",), "time between checks within the start period (default 5s)", "TIME"),
    Option(("--no-healthcheck",), "do not run the image's own check"),
    Option(("--cidfile",), "write the container's id to this file", "FILE", host_path="whole", completes="file"),
)

#: of the call, not of the container
PULL_OPTIONS = (
    Option(
        ("--pull",),
        "fetch the image: missing (where it is not here, the default), always or never",
        "WHEN",
        completes="missing|always|never",
    ),
    Option(("--platform",), "the image for this platform: linux/arm64", "PLATFORM"),
)

RUN_OPTIONS = (
    Option(("--name",), "name of the container (default: one is made up)", "NAME"),
    *_LIFE,
    *_ENVIRONMENT,
    *_STORAGE,
    *_NETWORK,
    *LIMIT_OPTIONS,
    *CREATION_LIMIT_OPTIONS,
    *_ISOLATION,
)
