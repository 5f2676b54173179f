"""The Dockerfiles, by what they are about."""

from __future__ import annotations

from ..case import Case
from . import applications, config, copying, expansion, failing, heredocs, ignoring, projects, running, sources, stages

CASES: tuple[Case, ...] = tuple(
    case
    for group in (config, expansion, heredocs, copying, ignoring, sources, running, stages, projects, applications, failing)
    for case in group.CASES
)

#: What must be shown: each in the features of one case at least.
FEATURES = frozenset(
    "FROM RUN CMD LABEL MAINTAINER EXPOSE ENV ADD COPY ENTRYPOINT VOLUME USER WORKDIR ARG ONBUILD STOPSIGNAL HEALTHCHECK SHELL "
    "heredoc escape syntax check scope modifiers multi-stage target ADD-tar ADD-URL ADD-git checksum link parents exclude chmod chown from "
    "mount-bind mount-cache mount-tmpfs mount-secret mount-ssh network contexts dockerignore build-arg label epoch platform project".split()
)
