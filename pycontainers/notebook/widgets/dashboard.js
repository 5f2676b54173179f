// The dashboard: tabs of rows, a search, what can be done, and a pane about one entry. Rows are drawn once; the kernel sends what has
// changed. Keys: one row has the focus (roving tabindex), letters act on it.

const KEYS = [
  ["↑ ↓ Home End", "walk the rows"], ["Enter", "open the pane"], ["Space", "select"], ["Ctrl A", "select all that is shown"], ["/", "search"],
  ["s", "start or stop"], ["r", "restart"], ["p", "pause or resume"], ["Delete", "remove, after a question"], ["l u t i e", "logs, stats, processes, inspect, terminal"],
  ["Esc", "back: close the pane, drop the selection"], ["?", "this list"],
];
const POINTS = 60;

function render({ model, el }) {
  const { ask, close: closeAsking, view } = asking(model);
  const root = element("div", "pyct pyct-dashboard");
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's own keys mean cells: x would cut this one
  const head = element("div", "pyct-bar");
  const tablist = element("div", "pyct-tabs");
  tablist.setAttribute("role", "tablist");
  tablist.setAttribute("aria-label", "what is shown");
  const field = element("input", "pyct-find");
  field.type = "search";
  field.placeholder = "search";
  const live = element("span", "pyct-live pyct-muted", "…");
  const help = button("?", () => toggleHelp(), { label: "keys", quiet: true });
  head.append(tablist, field, live, help);
  const keys = element("dl", "pyct-keys");
  for (const [key, does] of KEYS) {
    const pair = element("div");
    pair.append(element("dt", "", key), element("dd", "", does));
    keys.append(pair);
  }
  keys.hidden = true;
  const filters = element("div", "pyct-bar pyct-filters");
  filters.setAttribute("role", "group");
  filters.setAttribute("aria-label", "which of them");
  const bulk = element("div", "pyct-bar pyct-bulk");
  bulk.setAttribute("role", "group");
  bulk.setAttribute("aria-label", "what is selected");
  const lists = element("div", "pyct-lists");
  const said = element("div", "pyct-said pyct-muted");
  said.setAttribute("role", "status");
  const region = element("section", "pyct-pane");
  region.hidden = true;
  root.append(head, keys, filters, bulk, lists, said, region);
  el.append(root);

  let offset = 0; // the kernel's clock before the page's, seconds
  let heard = Date.now();
  let known = false; // the kernel has told everything
  let ended = false;
  let inView = true;
  const now = () => Date.now() / 1000 + offset;
  const courses = new Map();
  const tabs = TABS.map(makeTab);
  let tab = tabs[0];
  let opened = null; // { tab, id, pane, number, shown }
  let number = 0;

  // -- one tab: its rows

  function makeTab(spec) {
    const chip = element("button", "pyct-tab");
    chip.type = "button";
    chip.setAttribute("role", "tab");
    const count = element("span", "pyct-count");
    chip.append(element("span", "", spec.label), count);
    chip.addEventListener("click", () => choose(made));
    chip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      own(event);
      const next = tabs[(tabs.indexOf(made) + step + tabs.length) % tabs.length];
      choose(next);
      next.chip.focus();
    });
    tablist.append(chip);
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
    for (const column of spec.columns) {
      const title = element("div", "pyct-cell", column);
      title.setAttribute("role", "columnheader");
      header.append(title);
    }
    const body = element("div", "pyct-body");
    body.setAttribute("role", "rowgroup");
    const none = element("div", "pyct-none-yet pyct-muted");
    grid.append(header, body);
    grid.hidden = true;
    lists.append(grid, none);
    const observer = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          const line = made.lines.get(entry.target.dataset.id);
          if (!line) continue;
          line.seen = entry.isIntersecting;
          if (line.seen) tick(line);
        }
      },
      { root: body, rootMargin: "100px" },
    );
    const made = { spec, chip, count, grid, all, body, none, observer, lines: new Map(), selected: new Set(), filter: "all", text: "", focused: null };
    none.hidden = true;
    body.addEventListener("keydown", (event) => onKey(event));
    return made;
  }

  function choose(next) {
    tab = next;
    for (const one of tabs) {
      const on = one === tab;
      one.chip.setAttribute("aria-selected", String(on));
      one.chip.tabIndex = on ? 0 : -1;
      one.grid.hidden = one.none.hidden = !on;
    }
    field.value = tab.text;
    field.setAttribute("aria-label", `search ${tab.spec.label.toLowerCase()}`);
    filters.replaceChildren(
      ...tab.spec.filters.map(([key, label]) => {
        const chip = button(label, () => {
          tab.filter = key;
          sift();
        }, { quiet: true });
        chip.dataset.filter = key;
        chip.append(element("span", "pyct-count"));
        return chip;
      }),
    );
    sift();
  }

  // A row: cells that are made once, buttons, and a line below for questions and errors.
  function makeLine(owner, row) {
    const { spec } = owner;
    const made = element("div", "pyct-row");
    made.setAttribute("role", "row");
    made.dataset.id = row.id;
    made.tabIndex = -1;
    const box = element("input");
    box.type = "checkbox";
    box.tabIndex = -1;
    box.addEventListener("click", (event) => event.stopPropagation());
    box.addEventListener("change", () => select(line, box.checked));
    const first = cell("pyct-choice");
    first.append(box);
    const cells = spec.cells();
    const actions = cell("pyct-actions");
    const line = { owner, row: {}, made, box, cells, actions, buttons: new Map(), below: null, seen: false };
    for (const verb of spec.verbs) {
      const one = button("", () => begin(verb, [line]), { sign: verb.sign, quiet: true, danger: verb.danger });
      one.tabIndex = -1;
      line.buttons.set(verb.verb, one);
      actions.append(one);
    }
    made.append(first, ...cells.made, actions);
    made.addEventListener("click", (event) => {
      if (window.getSelection && String(window.getSelection())) return; // somebody marks text
      if (event.target.closest(".pyct-below")) return;
      focusLine(line, true);
      open(line);
    });
    made.addEventListener("focusin", () => focusLine(line, false));
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
      const label = `${verb.label} ${row.name}`;
      one.setAttribute("aria-label", label);
      one.title = `${verb.label} (${verb.key})`;
    }
    if (!(line.below && line.below.asks) || row.error || row.busy) below(line);
    tick(line);
    if (opened && opened.id === row.id && opened.tab === line.owner) describe(line);
  }

  function tick(line) {
    if (line.seen && inView) line.cells.tick(line.row, now(), courses.get(line.row.id));
  }

  // What stands below a row: an error with its hint, or why it may be forgotten.
  function below(line, made = null) {
    if (line.below) line.below.remove();
    line.below = null;
    const { row, owner } = line;
    if (!made && row.error) {
      made = element("div", "pyct-below pyct-error");
      made.setAttribute("role", "alert");
      made.append(element("span", "pyct-tone-bad", `✗ ${row.error.text}`));
      if (row.error.hint) made.append(element("span", "pyct-muted", ` ${row.error.hint}`));
      made.append(button("", () => send({ kind: "dismiss", tab: owner.spec.key, id: row.id }), { sign: "close", label: `dismiss the error of ${row.name}`, quiet: true }));
    } else if (!made && row.forgotten && row.forgotten.length) {
      made = element("div", "pyct-below pyct-tone-warn", `△ forgotten? ${row.forgotten.join("; ")}`);
    }
    if (made) {
      line.made.append(made);
      line.below = made;
    }
  }

  function update(owner, { rows, gone }) {
    for (const id of gone) drop(owner, id);
    for (const row of rows) {
      let line = owner.lines.get(row.id);
      if (!line) {
        line = makeLine(owner, row);
        owner.lines.set(row.id, line);
        // Newest first: what is there already stays in its place, and keeps the focus.
        const after = [...owner.body.children].find((other) => owner.lines.get(other.dataset.id).row.created < row.created);
        Object.assign(line.row, row);
        owner.body.insertBefore(line.made, after || null);
        owner.observer.observe(line.made);
      }
      fill(line, row);
    }
    if (owner === tab) sift();
    else owner.count.textContent = String(owner.lines.size);
  }

  function drop(owner, id) {
    const line = owner.lines.get(id);
    if (!line) return;
    const had = line.made.contains(document.activeElement);
    const next = neighbour(line, 1) || neighbour(line, -1);
    owner.observer.unobserve(line.made);
    line.made.remove();
    owner.lines.delete(id);
    owner.selected.delete(id);
    courses.delete(id);
    if (owner.focused === line) owner.focused = null;
    if (had && next) focusLine(next, true);
    if (opened && opened.id === id && opened.tab === owner) setText(opened.facts, `${line.row.name} was removed`);
  }

  function sift() {
    const { spec } = tab;
    const words = tab.text.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = new Map(spec.filters.map(([key]) => [key, 0]));
    let shown = 0;
    for (const line of tab.lines.values()) {
      const text = words.length ? spec.text(line.row).toLowerCase() : "";
      const found = words.every((word) => text.includes(word));
      let on = false;
      for (const [key, , test] of spec.filters) {
        if (!found || !test(line.row)) continue;
        counts.set(key, counts.get(key) + 1);
        if (key === tab.filter) on = true;
      }
      line.made.hidden = !on;
      if (on) shown += 1;
    }
    setText(tab.count, String(tab.lines.size));
    for (const chip of filters.children) {
      chip.setAttribute("aria-pressed", String(chip.dataset.filter === tab.filter));
      setText(chip.querySelector(".pyct-count"), String(counts.get(chip.dataset.filter)));
      chip.hidden = chip.dataset.filter === "forgotten" && !counts.get("forgotten") && tab.filter !== "forgotten";
    }
    setText(tab.none, shown ? "" : tab.lines.size ? "nothing matches" : spec.none);
    if (!tab.focused || tab.focused.made.hidden) {
      const first = visible()[0];
      if (tab.focused) tab.focused.made.tabIndex = -1;
      tab.focused = null;
      if (first) focusLine(first, false);
    }
    showBulk();
  }

  const visible = () => [...tab.body.children].filter((made) => !made.hidden).map((made) => tab.lines.get(made.dataset.id));

  function neighbour(line, step) {
    let made = line.made;
    do made = step > 0 ? made.nextElementSibling : made.previousElementSibling;
    while (made && made.hidden);
    return made ? line.owner.lines.get(made.dataset.id) : null;
  }

  function focusLine(line, move) {
    const before = line.owner.focused;
    if (before !== line) {
      if (before) {
        before.made.tabIndex = -1;
        for (const one of before.buttons.values()) one.tabIndex = -1;
        before.box.tabIndex = -1;
        for (const link of before.made.querySelectorAll("a")) link.tabIndex = -1;
      }
      line.owner.focused = line;
      line.made.tabIndex = 0;
      line.box.tabIndex = 0;
      for (const one of line.buttons.values()) one.tabIndex = 0;
      for (const link of line.made.querySelectorAll("a")) link.tabIndex = 0;
    }
    if (move) line.made.focus();
  }

  // -- selecting

  function select(line, on) {
    if (on) line.owner.selected.add(line.row.id);
    else line.owner.selected.delete(line.row.id);
    line.box.checked = on;
    line.made.setAttribute("aria-selected", String(on));
    showBulk();
  }

  function selectAll(on) {
    for (const line of visible()) select(line, on);
    if (!on) for (const id of [...tab.selected]) select(tab.lines.get(id), false);
  }

  const chosen = () => [...tab.selected].map((id) => tab.lines.get(id)).filter(Boolean);

  function showBulk() {
    const rows = chosen();
    bulk.hidden = rows.length === 0;
    tab.all.checked = rows.length > 0 && visible().every((line) => tab.selected.has(line.row.id));
    tab.all.indeterminate = rows.length > 0 && !tab.all.checked;
    if (bulk.hidden || bulk.asks) return;
    const names = element("b", "", `${rows.length} selected`);
    const buttons = tab.spec.verbs
      .map((verb) => [verb, rows.filter((line) => verb.when(line.row))])
      .filter(([, fit]) => fit.length)
      .map(([verb, fit]) => button(fit.length === rows.length ? verb.label : `${verb.label} ${fit.length}`, () => begin(verb, fit, true), { sign: verb.sign, danger: verb.danger }));
    bulk.replaceChildren(names, ...buttons, button("Clear", () => selectAll(false), { quiet: true }));
  }

  // -- acting

  const send = (message) => model.send({ ...message, view });

  function begin(verb, found, many = false) {
    if (!verb.ask) return act(verb, found);
    // Asked in its place; what is at hand is to keep it.
    const question = element("div", many ? "pyct-bar" : "pyct-below pyct-question");
    question.asks = true;
    question.setAttribute("role", "alertdialog");
    const text = verb.ask(found.map((line) => line.row));
    question.setAttribute("aria-label", text);
    const back = () => {
      if (many) {
        bulk.asks = false;
        showBulk();
      } else {
        below(found[0]);
        found[0].made.focus();
      }
    };
    const keep = button("Keep", back);
    const go = button(verb.label, () => {
      back();
      act(verb, found);
    }, { sign: verb.sign, danger: true });
    question.append(element("span", "", text), go, keep);
    question.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      own(event);
      back();
    });
    if (many) {
      bulk.asks = true;
      bulk.replaceChildren(question);
    } else {
      below(found[0], question);
    }
    keep.focus();
  }

  function act(verb, found) {
    send({ kind: "act", tab: tab.spec.key, verb: verb.verb, ids: found.map((line) => line.row.id) });
    tell(`${verb.label.toLowerCase()}: ${found.length === 1 ? found[0].row.name : `${found.length} of them`} …`);
  }

  let quiet = 0;
  function tell(text) {
    clearTimeout(quiet);
    setText(said, text);
    quiet = setTimeout(() => setText(said, ""), 8000);
  }

  // -- keys

  function onKey(event) {
    const line = tab.focused;
    if (!line || event.altKey || event.metaKey) return;
    const onRow = event.target === line.made;
    if (event.ctrlKey) {
      if (event.key !== "a") return;
      own(event);
      return selectAll(true);
    }
    const rows = visible();
    const at = rows.indexOf(line);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, PageDown: at + 8, PageUp: at - 8 }[event.key];
    if (to !== undefined) {
      own(event);
      const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
      return next && focusLine(next, true);
    }
    if (event.target.closest(".pyct-below")) return;
    if (onRow && event.key === "Enter") {
      own(event);
      return open(line);
    }
    if (onRow && event.key === " ") {
      own(event);
      return select(line, !tab.selected.has(line.row.id));
    }
    const verb = tab.spec.verbs.find((one) => one.key === event.key && one.when(line.row));
    if (verb && !line.row.busy) {
      own(event);
      return begin(verb, [line]);
    }
    const pane = tab.spec.panes.find((one) => one.key === event.key && (!one.when || one.when(line.row)));
    if (pane) {
      own(event);
      open(line, pane, true);
    }
  }

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input[type=search], .pyct-inner");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "?" && !typing) {
      toggleHelp();
    } else if (event.key === "Escape" && !event.target.closest(".pyct-inner")) {
      if (opened) closePane(true);
      else if (tab.selected.size) selectAll(false);
    }
    event.stopPropagation();
  });
  field.addEventListener("input", () => {
    tab.text = field.value;
    sift();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && field.value) {
      own(event);
      field.value = tab.text = "";
      sift();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      own(event);
      const first = visible()[0];
      if (first) focusLine(first, true);
    }
  });

  function toggleHelp() {
    keys.hidden = !keys.hidden;
    help.setAttribute("aria-expanded", String(!keys.hidden));
  }
  help.setAttribute("aria-expanded", "false");

  // -- the pane about one entry

  function open(line, pane = null, into = false) {
    const { spec } = line.owner;
    const again = opened && opened.id === line.row.id && opened.tab === line.owner;
    if (again && !pane) return closePane(true);
    const fit = spec.panes.filter((one) => !one.when || one.when(line.row));
    const kept = opened && fit.find((one) => one.pane === opened.pane && one.pane !== "terminal");
    const wanted = pane || kept || fit[0];
    if (opened) opened.shown.close();
    number += 1;
    const tools = { name: line.row.name, model, into: into || wanted.pane === "terminal", more: (question) => send({ kind: "more", ...question }) };
    const shown = wanted.make(tools);
    const facts = element("div", "pyct-facts pyct-muted");
    const chips = element("div", "pyct-tabs");
    chips.setAttribute("role", "tablist");
    chips.setAttribute("aria-label", `about ${line.row.name}`);
    for (const one of spec.panes) {
      const chip = element("button", "pyct-tab", one.label);
      chip.type = "button";
      chip.setAttribute("role", "tab");
      chip.setAttribute("aria-selected", String(one === wanted));
      chip.title = `${one.label} (${one.key})`;
      chip.tabIndex = one === wanted ? 0 : -1;
      chip.disabled = !fit.includes(one);
      chip.addEventListener("click", () => open(line, one));
      chip.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        own(event);
        open(line, fit[(fit.indexOf(one) + step + fit.length) % fit.length]);
        region.querySelector("[role=tab][aria-selected=true]").focus();
      });
      chips.append(chip);
    }
    const top = element("div", "pyct-bar");
    const title = element("b", "pyct-pane-title", line.row.name);
    top.append(title, chips, button("", () => closePane(true), { sign: "close", label: `close the pane of ${line.row.name}`, quiet: true }));
    const content = element("div", "pyct-content");
    content.setAttribute("role", "tabpanel");
    content.setAttribute("aria-label", `${wanted.label} of ${line.row.name}`);
    content.append(shown.made);
    region.replaceChildren(top, facts, content);
    region.setAttribute("aria-label", `about ${line.row.name}`);
    region.hidden = false;
    opened = { tab: line.owner, id: line.row.id, pane: wanted.pane, number, shown, facts, content };
    for (const one of line.owner.lines.values()) one.made.classList.toggle("pyct-open", one === line);
    describe(line);
    send({ kind: "open", tab: spec.key, pane: wanted.pane, id: line.row.id, number });
    if (into && shown.focus) shown.focus();
  }

  function describe(line) {
    const { spec } = line.owner;
    opened.facts.replaceChildren(...spec.describe(line.row).filter(Boolean).map((fact) => element("span", "pyct-fact", fact)));
    for (const note of spec.notes(line.row)) opened.facts.append(element("div", "pyct-tone-warn", `△ ${note}`));
  }

  function closePane(back) {
    if (!opened) return;
    const line = opened.tab.lines.get(opened.id);
    opened.shown.close();
    send({ kind: "close" });
    opened = null;
    region.hidden = true;
    region.replaceChildren();
    if (line) {
      line.made.classList.remove("pyct-open");
      if (back) focusLine(line, true);
    }
  }

  // -- what the kernel says

  const listeners = {
    rows(message) {
      offset = message.now - Date.now() / 1000;
      const owner = tabs.find((one) => one.spec.key === message.tab);
      if (owner) update(owner, message);
    },
    use(message) {
      for (const line of tabs[0].lines.values()) {
        const { row } = line;
        const fresh = message.rows[row.id];
        const course = courses.get(row.id);
        if (!active(row)) courses.delete(row.id);
        else if (fresh || course) push(row.id, fresh || [course.cpu[course.cpu.length - 1], course.memory[course.memory.length - 1]]);
      }
      for (const line of tab.lines.values()) tick(line);
    },
    said(message) {
      // What stands in a row that is seen needs no saying twice.
      const there = message.name && [...tab.lines.values()].some((line) => line.row.name === message.name && !line.made.hidden);
      tell(!message.error ? `✓ ${message.text}` : there ? "" : `✗ ${message.name ? `${message.name}: ` : ""}${message.error}`);
    },
    pane(message) {
      if (!opened || message.number !== opened.number) return;
      if (message.error) {
        const made = element("div", "pyct-tone-bad", `✗ ${message.error}`);
        made.setAttribute("role", "alert");
        opened.content.replaceChildren(made, element("div", "pyct-muted", message.hint));
      } else {
        opened.shown.show(message);
      }
    },
    stopped(message) {
      ended = true;
      root.classList.add("pyct-stopped");
      setText(live, `○ ${message.reason}`);
    },
  };

  function push(id, [cpu, memory]) {
    const course = courses.get(id) || { cpu: [], memory: [] };
    course.cpu.push(cpu);
    course.memory.push(memory);
    if (course.cpu.length > POINTS) {
      course.cpu.shift();
      course.memory.shift();
    }
    courses.set(id, course);
  }

  function received(message) {
    if (message.question !== undefined || (message.view && message.view !== view)) return;
    if (!known && message.kind !== "stopped") return; // what came before the whole is in it
    heard = Date.now();
    if (listeners[message.kind]) listeners[message.kind](message);
  }
  model.on("msg:custom", received);

  function hello() {
    ask({ kind: "hello" }, (message) => {
      known = true;
      heard = Date.now();
      offset = message.now - Date.now() / 1000;
      for (const [id, [cpu, memory]] of Object.entries(message.course)) courses.set(id, { cpu, memory });
      for (const owner of tabs) {
        const rows = message.tabs[owner.spec.key];
        const there = new Set(rows.map((row) => row.id));
        update(owner, { rows, gone: [...owner.lines.keys()].filter((id) => !there.has(id)) });
      }
    });
  }

  const watcher = setInterval(() => {
    if (ended) return;
    const silent = (Date.now() - heard) / 1000;
    setText(live, silent > 5 ? `○ no news for ${Math.round(silent)} s: is the kernel busy, or gone?` : "● live");
    root.classList.toggle("pyct-stopped", silent > 5);
  }, 1000);
  const looker = new IntersectionObserver((entries) => {
    inView = entries[entries.length - 1].isIntersecting;
    if (inView) for (const line of tab.lines.values()) tick(line);
  });
  looker.observe(root);
  const leave = () => send({ kind: "bye" });
  window.addEventListener("pagehide", leave);

  choose(tab);
  hello();
  return () => {
    clearInterval(watcher);
    clearTimeout(quiet);
    looker.disconnect();
    for (const one of tabs) one.observer.disconnect();
    window.removeEventListener("pagehide", leave);
    if (opened) opened.shown.close();
    model.off("msg:custom", received);
    leave();
    closeAsking();
  };
}

export default { render };
