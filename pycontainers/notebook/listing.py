"""Containers as HTML: a list, and one by itself. A status is told by a word and an icon, never by a colour alone."""

from __future__ import annotations

from .. import objects, wording
from ..errors import NotFound
from ..protocol import ContainerInfo, Port
from . import html
from .surroundings import port_link

_STATUS = {
    "running": ("▶", html.GOOD),
    "paused": ("‖", html.WARN),
    "restarting": ("↻", html.WARN),
    "starting": ("…", html.MUTED),
    "created": ("○", html.MUTED),
}


def status(info: ContainerInfo) -> str:
    """``▶ Up 3 minutes``, ``✓ Exited (0) …``, ``✗ Exited (137) …, OOM-killed``."""
    icon, color = _STATUS.get(info.status, ("✗", html.BAD))
    if info.exit is not None and info.status == "exited" and info.exit.code == 0:
        icon, color = "✓", html.MUTED
    if info.health == "unhealthy" and info.status == "running":
        icon, color = "△", html.BAD
    return html.colored(f"{icon} {wording.status_text(info)}", color)


def ports(published: tuple[Port, ...]) -> str:
    parts = []
    for port in published:
        found = port_link(port)
        part = html.link(found.url, port) if found.url else html.text(port)
        parts.append(part + (f" {html.muted(found.hint)}" if found.hint else ""))
    return "<br>".join(parts)


def containers(found: objects.ContainerList) -> str:
    rows = []
    for item, cells in zip(found, found.rows(), strict=True):
        ident, name, image, command, created, _, _, notebook = cells
        info = item.known
        warned = "".join(f"<br>{html.colored('△ ' + note, html.WARN)}" for note in info.notes)
        rows.append(
            [
                html.mono(ident),
                f"<b>{html.text(name)}</b>",
                html.text(image),
                html.mono(command),
                html.text(created),
                status(info) + warned,
                ports(info.ports),
                html.text(notebook),
            ]
        )
    return html.table(found.headers, rows) if rows else f"<p>{html.muted('no containers')}</p>"


def container(item: objects.Container) -> str:
    try:
        info = item.inspect()
    except NotFound:
        return f"<p>{html.text(repr(item))}</p>"
    facts = [
        ("Container", f"<b>{html.text(info.name)}</b> {html.mono(info.short_id)}"),
        ("Image", html.text(info.image)),
        ("Status", status(info)),
        ("Ports", ports(info.ports)),
        ("Address", html.mono(info.address) if info.address else ""),
        ("Notes", "<br>".join(html.colored(f"△ {note}", html.WARN) for note in info.notes)),
    ]
    return html.table(("", ""), [[html.muted(name), value] for name, value in facts if value])
