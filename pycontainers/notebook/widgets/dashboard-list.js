// One tab's list: its rows, which of them are shown and in which order, which has the focus, which are selected.

const COURSE_POINTS = 60;

function listOf(ui, spec, place) {
  const { makeLine, fill, tick, begin } = ui.maker;
  const grid = element("div", "pyct-grid");
  grid.setAttribute("role", "grid");
  grid.setAttribute("aria-multiselectable", "true");
  grid.setAttribute("aria-label", spec.label.toLowerCase());
  grid.style.setProperty("--pyct-template", spec.template);
  const header = element("div", "pyct-row pyct-header");
  header.setAttribute("role", "row");
  const all = element("input");
  all.type = "checkbox";
  all.setAttribute("aria-label", `select all ${spec.label.toLowerCase()} that are shown`);
  all.addEventListener("change", () => selectAll(all.checked));
  const first = element("div", "pyct-cell");
  first.setAttribute("role", "columnheader");
  first.append(all);
  header.append(first);
  const titles = spec.columns.map((column) => {
    const title = element("div", "pyct-cell");
    title.setAttribute("role", "columnheader");
    const by = spec.orders[column];
    if (by) title.append(button(column, () => order(column), { label: `sort by ${column.toLowerCase()}`, quiet: true }), element("span", "pyct-way"));
    else title.textContent = column;
    header.append(title);
    return title;
  });
  const body = element("div", "pyct-body");
  body.setAttribute("role", "rowgroup");
  const none = element("div", "pyct-none-yet pyct-muted");
  grid.append(header, body);
  place.append(grid, none);
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const line = lines.get(entry.target.dataset.id);
        if (!line) continue;
        line.seen = entry.isIntersecting;
        if (line.seen) tick(line);
      }
    },
    { root: body, rootMargin: "100px" },
  );
  const lines = new Map();
  const selected = new Set();
  const list = { spec, grid, body, lines, selected, filter: "all", text: "", focused: null };
  let sorted = null; // { column, down }

  const lineAt = (made) => lines.get(made.dataset.id);
  const visible = () => [...body.children].filter((made) => !made.hidden).map(lineAt);

  // -- what there is

  function update({ rows, gone }) {
    for (const id of gone) drop(id);
    for (const row of rows) {
      let line = lines.get(row.id);
      if (!line) {
        line = makeLine(list, row);
        lines.set(row.id, line);
        // Newest first: what is there already stays in its place, and keeps the focus.
        const after = [...body.children].find((other) => lineAt(other).row.created < row.created);
        body.insertBefore(line.made, after || null);
        observer.observe(line.made);
      }
      fill(line, row);
    }
  }

  function drop(id) {
    const line = lines.get(id);
    if (!line) return;
    const had = line.made.contains(document.activeElement);
    const rows = visible();
    const next = rows[rows.indexOf(line) + 1] || rows[rows.indexOf(line) - 1];
    observer.unobserve(line.made);
    line.made.remove();
    lines.delete(id);
    selected.delete(id);
    ui.courses.delete(id);
    if (list.focused === line) list.focused = null;
    if (had && next) focusLine(next, true);
    ui.about.gone(line);
  }

  // -- which are shown, and in which order

  function sift() {
    const words = list.text.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = new Map(spec.filters.map(([key]) => [key, 0]));
    let shown = 0;
    for (const line of lines.values()) {
      const text = words.length ? spec.text(line.row).toLowerCase() : "";
      const found = words.every((word) => text.includes(word));
      let on = false;
      for (const [key, , test] of spec.filters) {
        if (!found || !test(line.row)) continue;
        counts.set(key, counts.get(key) + 1);
        if (key === list.filter) on = true;
      }
      line.made.hidden = !on;
      if (on) shown += 1;
    }
    setText(none, shown ? "" : lines.size ? "nothing matches" : spec.none);
    if (!list.focused || list.focused.made.hidden) {
      if (list.focused) list.focused.made.tabIndex = -1;
      list.focused = null;
      const top = visible()[0];
      if (top) focusLine(top, false);
    }
    return counts;
  }

  // A title sorts one way, the other way, and then not at all.
  function order(column) {
    if (!sorted || sorted.column !== column) sorted = { column, down: spec.orders[column].down };
    else if (sorted.down === spec.orders[column].down) sorted.down = !sorted.down;
    else sorted = null;
    spec.columns.forEach((one, at) => {
      const on = sorted && sorted.column === one;
      if (!spec.orders[one]) return;
      titles[at].setAttribute("aria-sort", on ? (sorted.down ? "descending" : "ascending") : "none");
      setText(titles[at].lastChild, on ? (sorted.down ? "↓" : "↑") : "");
    });
    sort();
  }

  function sort() {
    const value = sorted ? spec.orders[sorted.column].by : null;
    const sign = sorted && sorted.down ? -1 : 1;
    const before = [...body.children].map(lineAt);
    const rows = [...before].sort((left, right) => {
      if (value) {
        const [one, other] = [value(left.row, ui.courses.get(left.row.id)), value(right.row, ui.courses.get(right.row.id))];
        if (one !== other) return one < other ? -sign : sign;
      }
      return right.row.created - left.row.created;
    });
    if (rows.every((line, at) => line === before[at])) return;
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    body.append(...rows.map((line) => line.made));
    if (focused) focused.focus({ preventScroll: true });
  }

  // What is sorted by use moves with it, but not under somebody's hand.
  function resort() {
    if (sorted && spec.orders[sorted.column].moves && !body.matches(":hover") && !body.contains(document.activeElement)) sort();
  }

  // -- focus: one row of a list can be reached by Tab, and its buttons

  function focusLine(line, move) {
    const before = list.focused;
    if (before !== line) {
      if (before) reach(before, -1);
      list.focused = line;
      reach(line, 0);
    }
    if (move) line.made.focus();
  }

  function reach(line, tabIndex) {
    line.made.tabIndex = line.box.tabIndex = tabIndex;
    for (const one of [...line.buttons.values(), ...line.made.querySelectorAll("a")]) one.tabIndex = tabIndex;
  }

  // -- selecting

  function select(line, on) {
    if (on) selected.add(line.row.id);
    else selected.delete(line.row.id);
    line.box.checked = on;
    line.made.setAttribute("aria-selected", String(on));
    showBulk();
  }

  function selectAll(on) {
    for (const line of visible()) select(line, on);
    if (!on) for (const id of [...selected]) select(lines.get(id), false);
  }

  const bar = {
    asks: false,
    ask(question) {
      bar.asks = true;
      ui.bulk.replaceChildren(question);
    },
    back() {
      bar.asks = false;
      showBulk();
    },
  };

  function showBulk() {
    const rows = [...selected].map((id) => lines.get(id));
    all.checked = rows.length > 0 && visible().every((line) => selected.has(line.row.id));
    all.indeterminate = rows.length > 0 && !all.checked;
    if (ui.list !== list) return;
    ui.bulk.hidden = rows.length === 0;
    if (ui.bulk.hidden) bar.asks = false;
    if (ui.bulk.hidden || bar.asks) return;
    const buttons = spec.verbs
      .map((verb) => [verb, rows.filter((line) => verb.when(line.row) && !line.row.busy)])
      .filter(([, fit]) => fit.length)
      .map(([verb, fit]) => {
        const text = fit.length === rows.length ? verb.label : `${verb.label} ${fit.length}`;
        return button(text, () => begin(verb, fit, bar), { sign: verb.sign, danger: verb.danger });
      });
    const clear = button("Clear", () => selectAll(false), { quiet: true });
    const had = ui.bulk.contains(document.activeElement) ? document.activeElement.textContent : null;
    ui.bulk.replaceChildren(element("b", "", `${rows.length} selected`), ...buttons, clear);
    const again = had && [...ui.bulk.querySelectorAll("button")].find((one) => one.textContent === had);
    if (again) again.focus();
  }

  // A verb by its key: for all that are selected, where the row that has the focus is one of them.
  function byKey(verb, line) {
    if (!selected.has(line.row.id) || selected.size < 2) return line.row.busy ? undefined : begin(verb, [line]);
    const fit = [...selected].map((id) => lines.get(id)).filter((one) => verb.when(one.row) && !one.row.busy);
    return begin(verb, fit, bar);
  }

  // What each uses: a point a second, the last one again where nothing has changed.
  function measure(fresh) {
    for (const { row } of lines.values()) {
      const course = ui.courses.get(row.id);
      const point = fresh[row.id] || (course && [course.cpu[course.cpu.length - 1], course.memory[course.memory.length - 1]]);
      if (!active(row)) ui.courses.delete(row.id);
      else if (point) push(row.id, point);
    }
  }

  function push(id, [cpu, memory]) {
    const course = ui.courses.get(id) || { cpu: [], memory: [] };
    course.cpu.push(cpu);
    course.memory.push(memory);
    if (course.cpu.length > COURSE_POINTS) {
      course.cpu.shift();
      course.memory.shift();
    }
    ui.courses.set(id, course);
  }

  function show(on) {
    grid.hidden = none.hidden = !on;
  }

  function tickAll() {
    resort();
    for (const line of lines.values()) tick(line);
  }

  show(false);
  return Object.assign(list, { update, sift, sort, visible, focusLine, select, selectAll, showBulk, byKey, measure, tickAll, show, end: () => observer.disconnect() });
}
