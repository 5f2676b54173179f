"""What a container shows, let through or not: pictures, figures, tables, text, frames."""

from __future__ import annotations

import base64
import io
import json
import struct
import sys
from types import SimpleNamespace
from typing import Any

import plotly.graph_objects as go
import pytest
from PIL import Image

from pycontainers.interpreter.inside.showing import TABLE
from pycontainers.notebook import figures, outputs, pictures


def picture_of(kind: str, size: tuple[int, int] = (7, 5), **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("image/png", picture_of("PNG")),
        ("image/jpeg", picture_of("JPEG")),
        ("image/jpeg", picture_of("JPEG", progressive=True)),
        ("image/gif", picture_of("GIF")),
        ("image/webp", picture_of("WEBP")),
        ("image/webp", picture_of("WEBP", lossless=True)),
    ],
    ids=["png", "jpeg", "progressive", "gif", "webp", "lossless"],
)
def test_pictures_are_read_by_their_own_heads(kind: str, data: bytes) -> None:
    assert pictures.checked(kind, data) == (7, 5)
    shown, metadata = outputs.bundle({kind: data}, pytest.fail)
    assert base64.b64decode(shown[kind]) == data and metadata[kind] == {"width": 7, "height": 5}
    for other in set(pictures.KINDS) - {kind}:
        with pytest.raises(ValueError):
            pictures.checked(other, data)
    for length in range(24):
        with pytest.raises(ValueError):
            pictures.checked(kind, data[:length])


@pytest.mark.parametrize(
    ("kind", "data", "why"),
    [
        ("image/png", b"<svg onload=alert(1)>", "no PNG"),
        ("image/png", picture_of("PNG")[:-8], "cut off"),
        ("image/png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 60_000, 60_000), "cut off|too many"),
        ("image/gif", b"GIF89a" + struct.pack("<HH", 0xFFFF, 0xFFFF) + b";", "too many"),
        ("image/gif", b"GIF89a" + struct.pack("<HH", 0, 5) + b";", "or none"),
        ("image/webp", picture_of("WEBP", (9000, 6000)), "too many"),
        ("image/jpeg", b"\xff\xd8\xff" + b"\xff" * 100, "cut off"),
        ("image/png", b"\0" * (11 << 20), "MB are too many"),
    ],
    ids=["svg", "cut", "side", "gif", "empty", "webp", "jpeg", "bytes"],
)
def test_what_is_no_picture_or_too_large_is_left_out_and_said(kind: str, data: bytes, why: str) -> None:
    said: list[str] = []
    assert outputs.bundle({kind: data}, said.append) == ({}, {})
    assert len(said) == 1 and said[0].endswith("\n")
    with pytest.raises(ValueError, match=why):
        pictures.checked(kind, data)


def checked(figure: Any) -> dict[str, Any]:
    return figures.checked(json.dumps(figure).encode())


def test_an_honest_figure_stays_as_it_is() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="<b>bold</b>"), layout={"title": "a < b", "template": "plotly_dark"})
    told = json.loads(figure.to_json())
    found = figures.checked(figure.to_json().encode())
    assert found["data"] == told["data"] and found["layout"]["title"] == {"text": "a &lt; b"}  # which is shown as a < b
    figure = go.Figure(go.Bar(y=[1], hovertemplate="<B>%{y}</B><br><i>it</i><extra></extra>"))
    assert figures.checked(figure.to_json().encode())["data"][0]["hovertemplate"] == "<b>%{y}</b><br><i>it</i><extra></extra>"
    flow = go.Figure(go.Sankey(node={"label": ["a", "b"]}, link={"source": [0], "target": [1], "value": [2]}))
    assert figures.checked(flow.to_json().encode())["data"][0]["link"]["source"] == [0]


def test_what_reaches_beyond_a_figure_goes() -> None:
    picture = "data:image/png;base64," + base64.b64encode(picture_of("PNG")).decode()
    found = checked(
        {
            "data": [{"type": "bar", "x": ["<a href='javascript:x'>a</a><img src=y>", "$\\href{javascript:x}{y}$"], "y": [1, 2]}],
            "layout": {
                "images": [{"source": "http://x/y.png"}, {"source": picture}, {"source": "data:image/svg+xml,<svg/>"}],
                "updatemenus": [{"buttons": [{"method": "relayout", "args": ["images[0].source", "http://x"]}]}],
                "sliders": [{}],
                "map": {"style": "http://x/style.json"},
                "template": {"layout": {"images": [{"source": "http://x"}]}, "data": {"scattermap": [{}], "bar": [{}]}},
            },
            "frames": [{"layout": {"images": [{"source": "http://x"}]}}],
            "config": {"plotlyServerURL": "http://x"},
        }
    )
    assert "http://x" not in json.dumps(found) and "javascript" not in json.dumps(found["data"]).replace("{javascript:x}", "")
    assert found["data"][0]["x"] == ["<span>a</span>&lt;img src=y>", "${javascript:x}{y}$"] and found["config"]["typesetMath"] is False
    assert [image["source"] for image in found["layout"]["images"]] == [picture]
    assert not {"updatemenus", "sliders", "map"} & set(found["layout"]) and "frames" not in found


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('<<x>a href="https://evil/">in</a>', '&lt;<x>a href="https://evil/">in</span>'.replace("<x", "&lt;x")),
        ("<%{customdata}>x</%{customdata}>", "&lt;%{customdata}>x&lt;/%{customdata}>"),
        ("<", "&lt;"),
        ("<b<extra></extra>", "&lt;b<extra></extra>"),
        ("<b onclick=x><a\nhref='y'>z</a >", "<b><span>z</span>"),
        ("<a", "&lt;a"),
        ("<span style='x'>1</span> <br/>", "<span>1</span> &lt;br/>"),
        ("\\href1{y}{z} \\hrefs", "1{y}{z} \\hrefs"),
    ],
)
def test_nothing_in_a_text_begins_a_link_alone_or_beside_another(written: str, shown: str) -> None:
    trace = {"type": "scatter", "x": [written], "y": [1], "texttemplate": written, "customdata": [[written]], "hovertext": [written]}
    layout = {"xaxis": {"tickprefix": written, "ticktext": [written]}, "template": {"data": {"bar": [{"texttemplate": written}]}}}
    found = checked({"data": [trace], "layout": layout})
    one, axis = found["data"][0], found["layout"]["xaxis"]
    assert [one["x"][0], one["texttemplate"], one["customdata"][0][0], one["hovertext"][0]] == [shown] * 4
    assert [axis["tickprefix"], *axis["ticktext"], found["layout"]["template"]["data"]["bar"][0]["texttemplate"]] == [shown] * 3


def test_a_notebook_without_plotly_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    said: list[str] = []
    assert outputs.bundle({figures.PLOTLY: b'{"data": []}', "text/plain": b"it"}, said.append)[0] == {"text/plain": "it"}
    assert "no plotly" in said[0] and "pip install plotly" in said[0]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (figures.PLOTLY, b'{"data": [], "layout": "x"}'),
        (figures.PLOTLY, b'{"data": [], "layout": [1]}'),
        (figures.PLOTLY, b'{"data": [{"type": []}]}'),
        (figures.PLOTLY, b'{"data": [{"y": [NaN]}]}'),
        (figures.PLOTLY, b"\xff"),
        (TABLE, b'{"columns": ["a"], "rows": [["1"]], "size": [Infinity, 1]}'),
        (TABLE, b'{"columns": ["a"], "rows": [["1"]], "size": [1e999, 1]}'),
        (TABLE, b'{"columns": ["a"], "rows": [["1"]], "size": [true, 1]}'),
        (TABLE, b'{"columns": [], "rows": [[]], "size": [1, 1]}'),
        (TABLE, b'{"columns": {"a": 1}, "rows": [{}], "size": [1, 1]}'),
        (TABLE, b'{"columns": ["a"], "rows": [{"a": 1}], "size": [1, 1]}'),
        (TABLE, b'{"columns": ["a"], "rows": ' + b"[" * 100_000),
    ],
)
def test_whatever_a_check_meets_is_said_in_a_line(kind: str, data: bytes) -> None:
    said: list[str] = []
    assert outputs.bundle({kind: data}, said.append) == ({}, {})
    assert len(said) == 1 and "left out" in said[0] and len(said[0]) < 500
    with pytest.raises(ValueError):
        figures.checked(data) if kind == figures.PLOTLY else outputs.table(data)


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        ({"data": [{"type": "choropleth"}]}, "choropleth"),
        ({"data": [{"type": "scattermap"}]}, "scattermap"),
        ({"data": [{"type": "image", "source": "http://x/y.png"}]}, "address"),
        ({"data": [{"type": "bar", "evil": 1}]}, "refuses"),
        ({"data": [{"type": "bar", "width": "<script>"}]}, "refuses"),
        ({"data": [], "layout": {"evil": 1}}, "refuses"),
        ({"data": 5}, "not iterable"),
        ({"data": [5]}, "something else"),
        ([], "list"),
        ({}, "data"),
    ],
)
def test_what_is_no_figure_is_refused(figure: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked(figure)


LARGE = picture_of("GIF", (5000, 5000))


def test_pictures_of_one_cell_have_so_many_pixels_together() -> None:
    room, said = pictures.Room(), []  # type: tuple[pictures.Room, list[str]]
    shown = [outputs.bundle({"image/gif": LARGE}, said.append, room=room)[0] for _ in range(10)]
    assert [bool(one) for one in shown] == [True] * 8 + [False] * 2 and len(said) == 2 and "200 megapixels together" in said[0]
    source = "data:image/gif;base64," + base64.b64encode(LARGE).decode()
    images = {"data": [], "layout": {"images": [{"source": source}] * 9}}
    with pytest.raises(ValueError, match="200 megapixels together"):
        checked(images)
    images["layout"]["images"].pop()  # type: ignore[call-overload]
    assert len(checked(images)["layout"]["images"]) == 8
    with pytest.raises(ValueError, match="no PNG"):
        checked({"data": [{"type": "image", "source": source.replace("gif", "png")}]})


def test_what_is_cleared_or_of_another_cell_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython.core.getipython
    import IPython.display

    shell, shown, said = SimpleNamespace(execution_count=1), [], []  # type: tuple[Any, list[Any], list[str]]
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "publish_display_data", lambda data, metadata: shown.append(data))
    for step, count in ((lambda: None, 8), (outputs.cleared, 16), (lambda: setattr(shell, "execution_count", 2), 24)):
        step()
        for _ in range(9):
            outputs.show({"image/gif": LARGE}, said.append)
        assert len(shown) == count
    outputs.cleared()


def test_trees_without_end_and_huge_ones() -> None:
    with pytest.raises(ValueError):
        figures.checked(b'{"data":' + b"[" * 100_000)
    with pytest.raises(ValueError):
        figures.checked(b" " * (17 << 20))


def test_a_table_is_drawn_from_words() -> None:
    evil = "<img src=x onerror=alert(1)>$x$"
    shown = outputs.table(json.dumps({"columns": ["", evil], "rows": [[evil, evil]], "size": [1, 1]}).encode())
    assert "<img" not in shown and "$x$" not in shown and "1 rows × 1 columns" in shown
    for wrong in (
        {"columns": ["a"], "rows": [["a", "b"]], "size": [1, 1]},
        {"columns": 5},
        {"columns": ["a"] * 20_000, "rows": [], "size": [1, 1]},
        5,
    ):
        with pytest.raises(ValueError):
            outputs.table(json.dumps(wrong).encode())


def test_text_keeps_colours_and_no_other_escapes() -> None:
    assert outputs.plain(b"\x1b[31mred\x1b[0m \x1b]52;c;x\x07\x1b[2J") == "\x1b[31mred\x1b[0m "
    assert len(outputs.plain(b"x" * (2 << 20))) == 1 << 20


def test_markup_only_where_it_is_asked_for_and_only_in_a_frame() -> None:
    forms = {"text/plain": b"it", "text/html": b'"></iframe><script>alert(1)</script>'}
    assert outputs.bundle(forms, pytest.fail)[0] == {"text/plain": "it"}
    shown = outputs.bundle(forms, pytest.fail, markup=True)[0]["text/html"]
    assert shown.count("<iframe") == shown.count("</iframe>") == 1 and 'sandbox="allow-scripts"' in shown and "<script" not in shown
    for unknown in ("application/javascript", "text/latex", "application/vnd.jupyter.widget-view+json", "image/svg+xml"):
        assert outputs.bundle({unknown: b"x"}, pytest.fail) == ({}, {})
