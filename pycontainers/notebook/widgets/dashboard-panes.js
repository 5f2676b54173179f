// What is shown of one container or image. Each pane is `make(tools)` -> { made, show(message), close() }; `tools.more(question)` asks
// the kernel's pane for more.

const LOG_LINES = 3000; // kept on the page; older ones are asked for again
const LOG_MOST = 30000; // kept while somebody reads among them

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

function logPane({ more, name }) {
  const made = element("div", "pyct-log-pane");
  const bar = element("div", "pyct-bar");
  const field = element("input", "pyct-find");
  field.type = "search";
  field.placeholder = "search in the log";
  field.setAttribute("aria-label", "search in the log");
  const found = element("span", "pyct-muted pyct-found");
  found.setAttribute("role", "status");
  const follow = toggle("Follow", true, "keep the newest line in view");
  const times = toggle("Times", false, "put the time before each line");
  bar.append(field, found, follow.made, times.made);
  const box = element("div", "pyct-log");
  box.tabIndex = 0;
  box.setAttribute("role", "log");
  box.setAttribute("aria-live", "off");
  box.setAttribute("aria-label", `log of ${name}`);
  const earlier = button("earlier lines", () => {
    earlier.disabled = true;
    follow.set(false); // who reads what was does not want it taken away
    asked = start;
    more({ start });
  });
  earlier.classList.add("pyct-earlier");
  const lines = element("div", "pyct-lines");
  const empty = element("div", "pyct-muted", "the log is empty");
  box.append(earlier, empty, lines);
  made.append(bar, box);
  let start = 0; // where the first line stands in the whole log (bytes)
  let asked = -1;
  let matches = 0;

  function toggle(text, on, label) {
    const one = button(text, () => set(one.getAttribute("aria-pressed") !== "true"), { label });
    one.setAttribute("aria-label", text);
    function set(now) {
      one.setAttribute("aria-pressed", String(now));
      if (text === "Times") box.classList.toggle("pyct-timed", now);
      else if (now) box.scrollTop = box.scrollHeight;
    }
    one.setAttribute("aria-pressed", String(on));
    return { made: one, set, get on() { return one.getAttribute("aria-pressed") === "true"; } };
  }

  function line([time, error, text]) {
    const one = element("div", `pyct-line${error ? " pyct-stderr" : ""}`);
    one.dataset.text = text.toLowerCase();
    const when = element("span", "pyct-time pyct-muted", `${clock(time)} `);
    when.title = new Date(time * 1000).toISOString();
    one.append(when);
    if (error) {
      const sign = element("span", "pyct-stream", "err ");
      sign.title = "written to stderr";
      one.append(sign);
    }
    const body = element("span", "pyct-text");
    one.append(body);
    one.body = body;
    one.text = text;
    mark(one);
    return one;
  }

  // Found words are marked; lines without one are hidden.
  function mark(one) {
    const wanted = field.value.toLowerCase();
    one.hidden = wanted !== "" && !one.dataset.text.includes(wanted);
    one.body.replaceChildren();
    if (!wanted || one.hidden) {
      one.body.textContent = one.text || " ";
      return;
    }
    matches += 1;
    let from = 0;
    for (let at = one.dataset.text.indexOf(wanted); at >= 0; at = one.dataset.text.indexOf(wanted, from)) {
      one.body.append(one.text.slice(from, at), element("mark", "", one.text.slice(at, at + wanted.length)));
      from = at + wanted.length;
    }
    one.body.append(one.text.slice(from));
  }

  function say() {
    setText(found, field.value ? `${matches} line${matches === 1 ? "" : "s"}` : "");
    setText(earlier.firstChild, field.value ? "search earlier lines" : "earlier lines");
    empty.hidden = lines.childElementCount > 0;
  }

  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      matches = 0;
      for (const one of lines.children) if (one.body) mark(one);
      say();
      if (follow.on) box.scrollTop = box.scrollHeight;
    }, 120);
  });
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape" && field.value) {
      field.value = "";
      field.dispatchEvent(new Event("input"));
    }
  });
  box.addEventListener("wheel", (event) => event.deltaY < 0 && follow.set(false), { passive: true });
  box.addEventListener("keydown", (event) => {
    if (["ArrowUp", "PageUp", "Home"].includes(event.key)) follow.set(false);
    if (event.key === "End") follow.set(true);
    if (["ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", " "].includes(event.key)) event.stopPropagation();
  });

  function show(message) {
    if (message.earlier && asked === start) {
      const before = box.scrollHeight;
      lines.prepend(...batch(message.earlier.map(line), message.start));
      box.scrollTop += box.scrollHeight - before;
      start = message.start;
    }
    if (message.earlier) earlier.disabled = false;
    if (message.lines) {
      const made = message.lines.map(line);
      if (message.skipped) made.unshift(element("div", "pyct-muted", `… ${message.skipped} came too fast to be shown`));
      if (!lines.childElementCount) start = message.start;
      lines.append(...batch(made, message.start));
      trim();
      if (follow.on) box.scrollTop = box.scrollHeight;
    }
    earlier.hidden = start === 0;
    say();
  }

  function batch(made, at) {
    if (made.length) made[0].at = at;
    return made;
  }

  // The oldest go by whole batches, of which it is known where they begin: "earlier lines" goes on from there.
  function trim() {
    let left = lines.childElementCount - (follow.on ? LOG_LINES : LOG_MOST);
    if (left <= 0) return;
    let first = lines.firstElementChild;
    while (first && (left > 0 || first.at === undefined)) {
      first = first.nextElementSibling;
      left -= 1;
    }
    if (!first) return; // one batch alone
    while (lines.firstElementChild !== first) lines.firstElementChild.remove();
    start = first.at;
  }
  return { made, show, close: () => clearTimeout(waiting), focus: () => box.focus({ preventScroll: true }) };
}

const DASHES = ["━", "┅", "┄", "┈"];

function statsPane() {
  const made = element("div", "pyct-charts");
  const said = element("div", "pyct-muted");
  said.setAttribute("role", "status");
  const shown = new Map();
  made.append(said);

  function chart(title) {
    const box = element("div", "pyct-chart");
    const head = element("div", "pyct-chart-title");
    const pictures = element("div", "pyct-chart-pictures");
    const list = element("div", "pyct-chart-lines");
    box.append(head, pictures, list);
    made.append(box);
    const one = { head, pictures, list, lines: [] };
    shown.set(title, one);
    return one;
  }

  function show(message) {
    setText(said, message.samples ? `${message.samples} samples over ${ago(message.seconds)}` : "nothing recorded yet");
    for (const panel of message.charts) {
      const one = shown.get(panel.title) || chart(panel.title);
      one.head.replaceChildren(element("b", "", panel.title));
      if (panel.limit) one.head.append(element("span", "pyct-muted", ` limit ${panel.limit}`));
      one.list.replaceChildren();
      if (panel.note) one.list.append(element("div", "pyct-muted", panel.note));
      one.pictures.hidden = Boolean(panel.note);
      if (panel.note) continue;
      const top = ceiling(panel.series.flatMap((series) => series.values), panel.top, 1e-9);
      panel.series.forEach((series, place) => {
        if (!one.lines[place]) {
          one.lines[place] = sparkline(240, 56);
          one.lines[place].made.classList.add(`pyct-line-${place % 4}`);
          one.pictures.append(one.lines[place].made);
        }
        one.lines[place].draw(series.values, Math.max(2, series.values.length), top, place ? 0 : panel.top);
        const [last, mean, peak] = series.texts.length ? series.texts : ["–", "–", "–"];
        const row = element("div", "pyct-chart-line");
        row.append(element("span", `pyct-dash pyct-line-${place % 4}`, DASHES[place % 4]));
        row.append(element("span", "", `${series.name} ${last}`), element("span", "pyct-muted", `mean ${mean}, peak ${peak}`));
        one.list.append(row);
      });
    }
    let marks = made.querySelector(".pyct-marks");
    if (!marks) marks = made.appendChild(element("div", "pyct-marks"));
    setText(marks, message.marks.join(" · "));
  }
  return { made, show, close() {} };
}

function tablePane({ name, empty }) {
  const made = element("div", "pyct-scroll");
  made.tabIndex = 0;
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", name);
  return {
    made,
    show(message) {
      const top = made.scrollTop;
      if (message.rows.length) made.replaceChildren(table(message.titles, message.rows, message.left, name));
      else made.replaceChildren(element("div", "pyct-muted", empty));
      made.scrollTop = top;
    },
    close() {},
  };
}

function inspectPane({ name }) {
  const made = element("div", "pyct-scroll");
  const tree = documentTree(`everything about ${name}`);
  made.append(tree.made);
  return { made, show: (message) => tree.show(message.document), close() {} };
}

// Another widget of ours, by its model.
function widgetPane({ model, wait, into }) {
  const made = element("div", "pyct-inner");
  const waiting = element("div", "pyct-muted", wait);
  made.append(waiting);
  let view = null;
  let closed = false;
  return {
    made,
    async show(message) {
      const manager = model.widget_manager;
      const inner = await manager.get_model(message.model);
      view = await manager.create_view(inner, {});
      if (closed) return view.remove();
      waiting.remove();
      made.append(view.el);
      if (into) this.focus();
    },
    focus() {
      const place = made.querySelector("textarea, input") || made.querySelector("[tabindex='0']");
      if (place) place.focus({ preventScroll: true });
    },
    close() {
      closed = true;
      if (view) view.remove();
    },
  };
}
