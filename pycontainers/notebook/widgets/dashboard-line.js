// One row of the dashboard: cells that are made once, buttons, and a place below for questions and errors. `ui` is what the parts of the
// page share (dashboard.js).

function lineMaker(ui) {
  function makeLine(owner, row) {
    const made = element("div", "pyct-row");
    made.setAttribute("role", "row");
    made.dataset.id = row.id;
    made.tabIndex = -1;
    const box = element("input");
    box.type = "checkbox";
    box.tabIndex = -1;
    box.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("change", () => ui.select(line, box.checked));
    const first = cell("pyct-choice");
    first.append(box);
    const cells = owner.spec.cells();
    const actions = cell("pyct-actions");
    const line = { owner, row: { ...row }, made, box, cells, buttons: new Map(), below: null, asks: false, seen: false };
    for (const verb of owner.spec.verbs) {
      const one = button("", () => begin(verb, [line]), { sign: verb.sign, quiet: true, danger: verb.danger });
      one.tabIndex = -1;
      line.buttons.set(verb.verb, one);
      actions.append(one);
    }
    made.append(first, ...cells.made, actions);
    made.addEventListener("click", (event) => {
      if (String(window.getSelection())) return; // somebody marks text
      if (event.target.closest(".pyct-below")) return;
      ui.focusLine(line, true);
      ui.open(line);
    });
    made.addEventListener("focusin", () => ui.focusLine(line, false));
    return line;
  }

  function fill(line, changed) {
    const row = Object.assign(line.row, changed);
    line.cells.fill(row);
    line.box.setAttribute("aria-label", `select ${row.name}`);
    line.made.setAttribute("aria-label", row.name);
    line.made.setAttribute("aria-busy", String(Boolean(row.busy)));
    for (const verb of line.owner.spec.verbs) {
      const one = line.buttons.get(verb.verb);
      one.hidden = !verb.when(row);
      one.disabled = Boolean(row.busy);
      one.setAttribute("aria-label", `${verb.label} ${row.name}`);
      one.title = `${verb.label} (${verb.key})`;
    }
    if (!line.asks || row.error || row.busy) below(line);
    tick(line);
    ui.changed(line);
  }

  // Every second: only of what is seen.
  function tick(line) {
    if (line.seen && ui.inView) line.cells.tick(line.row, ui.now(), ui.courses.get(line.row.id));
  }

  // What stands below a row: a question, an error with its hint, or why it may be forgotten.
  function below(line, question = null) {
    if (line.below) line.below.remove();
    line.below = null;
    line.asks = Boolean(question);
    const { row, owner } = line;
    let made = question;
    if (!made && row.error) {
      made = element("div", "pyct-error");
      made.setAttribute("role", "alert");
      made.append(element("span", "pyct-tone-bad", `✗ ${row.error.text}`));
      if (row.error.hint) made.append(element("span", "pyct-muted", row.error.hint));
      const dismiss = () => ui.send({ kind: "dismiss", tab: owner.spec.key, id: row.id });
      made.append(button("", dismiss, { sign: "close", label: `dismiss the error of ${row.name}`, quiet: true }));
    } else if (!made && row.forgotten && row.forgotten.length) {
      made = element("div", "pyct-tone-warn", `△ forgotten? ${row.forgotten.join("; ")}`);
    }
    if (!made) return;
    line.below = cell("pyct-below");
    line.below.append(made);
    line.made.append(line.below);
  }

  // -- acting

  function begin(verb, found, bar = null) {
    if (!verb.ask) return act(verb, found);
    // Asked in its place; what is at hand is to keep it.
    const question = element("div", "pyct-question");
    question.setAttribute("role", "alertdialog");
    const text = verb.ask(found.map((line) => line.row));
    question.setAttribute("aria-label", text);
    const from = bar ? document.activeElement : found[0].made;
    const back = () => {
      if (bar) bar.back();
      else below(found[0]);
      if (from.isConnected) from.focus();
    };
    const go = button(verb.label, () => {
      back();
      act(verb, found);
    }, { sign: verb.sign, danger: true });
    const keep = button("Keep", back);
    question.append(element("span", "", text), go, keep);
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      own(event);
      back();
    });
    if (bar) bar.ask(question);
    else below(found[0], question);
    keep.focus();
  }

  function act(verb, found) {
    const { spec } = found[0].owner;
    ui.send({ kind: "act", tab: spec.key, verb: verb.verb, ids: found.map((line) => line.row.id) });
    // A kernel that is busy with a cell may hear of it only later.
    for (const line of found) fill(line, { busy: `asked to ${verb.label.toLowerCase()}`, error: null });
    ui.tell(`${verb.label.toLowerCase()}: ${found.length === 1 ? found[0].row.name : `${found.length} ${spec.one}s`} …`);
  }

  return { makeLine, fill, tick, below, begin };
}
