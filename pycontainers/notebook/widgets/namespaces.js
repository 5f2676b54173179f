// The view of namespaces: a table of who has which, to move in by arrows or mouse, and below it what is visible through the chosen one
// beside this machine's view. Everything that is shown is set as text, never as HTML: host names, commands and mounts come from containers.

function render({ model, el }) {
  const root = element("section", "pyct pyct-namespaces");
  root.setAttribute("aria-label", "namespaces");
  const head = element("div", "pyct-bar");
  const status = element("span", "pyct-muted pyct-state");
  status.setAttribute("role", "status");
  const again = element("button", "pyct-button", "Read again");
  again.type = "button";
  head.append(element("b", "", "Namespaces"), status, again);
  const grid = element("table", "pyct-grid");
  grid.setAttribute("role", "grid");
  grid.setAttribute("aria-label", "who has which namespace");
  const frame = element("div", "pyct-frame");
  frame.append(grid);
  const lesson = element("p", "pyct-lesson");
  const panes = element("div", "pyct-panes");
  root.append(head, frame, lesson, panes);
  el.append(root);

  const { ask, close } = asking(model);
  let chosen = { kind: model.get("first").kind, column: model.get("first").column };

  function draw() {
    const table = model.get("table");
    const top = element("tr");
    top.append(element("th", "", "namespace"), ...table.columns.map((name) => element("th", "pyct-name", name)));
    const rows = table.rows.map((row) => {
      const line = element("tr");
      const name = element("th", "pyct-kind", row.kind);
      name.append(element("span", "pyct-muted", ` ${row.title}`));
      name.scope = "row";
      line.append(name);
      row.cells.forEach((cell, column) => line.append(field(row, cell, column)));
      return line;
    });
    for (const one of top.children) one.scope = "col";
    grid.replaceChildren(top, ...rows);
    mark();
  }

  function field(row, cell, column) {
    const made = element("td", "pyct-cell");
    made.setAttribute("role", "gridcell");
    made.dataset.kind = row.kind;
    made.dataset.column = column;
    made.append(element("span", "pyct-whose", cell.said), element("span", "pyct-muted pyct-number", cell.number));
    made.addEventListener("click", () => choose(row.kind, column, true));
    return made;
  }

  function mark() {
    for (const cell of grid.querySelectorAll(".pyct-cell")) {
      const is = cell.dataset.kind === chosen.kind && Number(cell.dataset.column) === chosen.column;
      cell.setAttribute("aria-selected", String(is));
      cell.tabIndex = is ? 0 : -1;
    }
  }

  function choose(kind, column, focus) {
    chosen = { kind, column };
    mark();
    if (focus) grid.querySelector('[aria-selected="true"]')?.focus();
    question({ kind: "look" });
  }

  function question(message) {
    status.textContent = "…"; // a busy kernel answers when it is free
    ask({ ...message, of: chosen.kind, column: chosen.column }, (found) => {
      status.textContent = found.error ? `△ ${found.error}` : "";
      if (!found.error && found.kind === chosen.kind) show(found);
    });
  }

  function show(found) {
    const page = element("a", "", found.page);
    page.href = found.url;
    page.target = "_blank";
    page.rel = "noopener noreferrer";
    lesson.replaceChildren(element("b", "", found.kind), ` ${found.text} `, page);
    if (found.options) lesson.append(element("span", "pyct-muted", `  Changed by ${found.options}.`));
    const host = pane(model.get("table").columns[0], found.host);
    panes.replaceChildren(...(found.column ? [pane(`in ${model.get("table").columns[found.column]}`, found.theirs), host] : [host]));
  }

  grid.addEventListener("keydown", (event) => {
    const table = model.get("table");
    const row = table.rows.findIndex((one) => one.kind === chosen.kind);
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -chosen.column], End: [0, 1e6] }[event.key];
    if (!step) return;
    own(event);
    const next = table.rows[Math.max(0, Math.min(table.rows.length - 1, row + step[0]))];
    choose(next.kind, Math.max(0, Math.min(table.columns.length - 1, chosen.column + step[1])), true);
  });
  again.addEventListener("click", () => question({ kind: "read" }));
  const changed = () => {
    chosen.column = Math.min(chosen.column, model.get("table").columns.length - 1);
    draw();
  };
  model.on("change:table", changed);
  draw();
  show(model.get("first"));
  return () => {
    close();
    model.off("change:table", changed);
  };
}

function pane(title, sights) {
  const made = element("div", "pyct-pane");
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", title);
  made.append(element("div", "pyct-of", title));
  for (const sight of sights) {
    if (sight.title) made.append(element("div", "pyct-muted pyct-title", sight.title));
    if (sight.rows.length) {
      const frame = element("div", "pyct-frame");
      const table = element("table", "pyct-sight");
      const top = element("tr");
      top.append(...sight.headers.map((header) => element("th", "", header.toLowerCase())));
      for (const one of top.children) one.scope = "col";
      table.append(top);
      for (const row of sight.rows) {
        const line = element("tr");
        line.append(...row.map((cell) => element("td", "", cell)));
        table.append(line);
      }
      frame.append(table);
      made.append(frame);
    }
    if (sight.left) made.append(element("div", "pyct-muted", `… and ${sight.left} more`));
    if (sight.note) made.append(element("div", "pyct-muted pyct-note", sight.note));
  }
  return made;
}

export default { render };
