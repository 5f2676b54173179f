"""Parts of our widgets on a page of their own, in real Chromium: what a flood does to them, and where things lie."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycontainers.notebook.widgets.base import source

sys.path.insert(0, str(Path(__file__).parent))

from test_jupyterlab import CHROMIUM, FLAGS, pytestmark, shot

pytestmark = [*pytestmark]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    found = browser.new_page(viewport={"width": 900, "height": 500})
    found.set_content("<body><div id=place class='pyct pyct-dashboard pyct-terminal'></div></body>")
    yield found
    found.close()


LOG = """() => {
    window.asked = [];
    window.pane = logPane({ more: (question) => window.asked.push(question.start), name: "web" });
    document.getElementById("place").append(window.pane.made);
    window.batch = (number) => Array.from({ length: 1000 }, (_, at) => [0, false, `line ${number * 1000 + at}`]);
    window.say = (number) => window.pane.show({ lines: window.batch(number), start: number * 100 });
    for (const number of [5, 6, 7, 8, 9, 10]) window.say(number);
}"""
ENDS = "() => { const all = [...document.querySelectorAll('.pyct-text')]; return [all[0].textContent, all[all.length - 1].textContent]; }"


def test_earlier_lines_of_a_long_log_leave_no_hole(page: Any) -> None:
    page.add_script_tag(content=source("dashboard-parts.js", "dashboard-panes.js"))
    page.add_style_tag(content=source("dashboard.css"))
    page.evaluate(LOG)
    assert page.evaluate(ENDS) == ["line 8000", "line 10999"], "the oldest have left the page"
    earlier = page.get_by_role("button", name="earlier lines")
    earlier.click()
    assert page.evaluate("window.asked") == [800], "what is earlier begins where the page does"
    page.evaluate("() => { window.say(11); window.pane.show({ earlier: window.batch(7), start: 700 }); }")
    assert page.get_by_role("button", name="Follow").get_attribute("aria-pressed") == "false"
    assert page.evaluate(ENDS) == ["line 7000", "line 11999"], "nothing is taken from who reads"
    page.evaluate("() => window.pane.show({ earlier: window.batch(7), start: 700 })")
    assert page.evaluate(ENDS)[0] == "line 7000" and page.locator(".pyct-line").count() == 5000, "an answer counts once"
    page.get_by_role("button", name="Follow").click()
    page.evaluate("() => window.say(12)")
    assert page.evaluate(ENDS) == ["line 10000", "line 12999"]
    earlier.click()
    assert page.evaluate("window.asked") == [800, 1000]


LINES = """() => {
    window.screen_ = lines(document.getElementById("place"), () => {}, () => {});
    window.frames_ = 0;
    window.write = (text) => window.screen_.write(new TextEncoder().encode(text), () => {});
}"""


def test_a_line_without_end_does_not_hold_the_page(page: Any) -> None:
    page.add_script_tag(content=source("terminal-lines.js"))
    page.add_script_tag(content="function button(text) { return element('button', '', text); }")
    page.evaluate(LINES)
    took = page.evaluate("""() => { const begun = performance.now();
        for (let at = 0; at < 300; at += 1) window.write("x".repeat(10000));
        return performance.now() - begun; }""")
    assert took < 5000, f"{took:.0f} ms for three megabytes"
    page.wait_for_function("document.querySelectorAll('.pyct-line').length > 700")
    longest = page.evaluate("Math.max(...[...document.querySelectorAll('.pyct-line')].map(one => one.textContent.length))")
    assert longest == 4096
    assert page.evaluate("document.querySelector('.pyct-line').childElementCount") == 1
    page.evaluate(r"""() => window.write("\n\x1b[31mred\x1b[0m plain\r12\n" + "\x1b[32ma\x1b[0mb".repeat(2000))""")
    page.wait_for_function("document.querySelector('.pyct-lines').textContent.includes('12d plain')")
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.pyct-line')].map(one => one.childElementCount))") <= 513
    assert page.locator(".pyct-ink-red").last.inner_text() == "d"


CELL = """() => {
    const grid = document.getElementById("place").appendChild(element("div", "pyct-grid"));
    for (const [width, text] of [["10.5em", "852.0 KiB of 64 MiB"], ["9em", "1023.9 MiB of 1023.9 GiB"]]) {
        const one = courseCell("memory");
        grid.append(one.made);
        one.made.style.width = width;
        one.made.style.margin = "1em";
        one.fill(Array.from({ length: 60 }, (_, at) => 800 + 60 * (at % 2)), 65536, 1024, text);
    }
}"""
PLACES = """() => [...document.querySelectorAll('.pyct-use')].map(cell => [cell, ...cell.children].map(one => {
    const { top, bottom, right } = one.getBoundingClientRect(); return [top, bottom, right]; }))"""


def test_numbers_and_their_courses_do_not_overlap(page: Any) -> None:
    page.add_script_tag(content=source("dashboard-parts.js", "dashboard-panes.js", "dashboard-tabs.js"))
    page.add_style_tag(content=source("dashboard.css"))
    page.evaluate(CELL)
    for cell, (_, end, _), (top, bottom, right) in page.evaluate(PLACES):
        assert end < top and bottom <= cell[1] and right <= cell[2] + 0.5
    shot(page.locator(".pyct-grid"), "dashboard-courses-light")
