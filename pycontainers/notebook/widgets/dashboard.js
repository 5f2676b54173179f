// The dashboard: tabs of rows, a search, what can be done, and a pane about one entry. Rows are drawn once; the kernel sends what has
// changed. Keys: one row has the focus (roving tabindex), letters act on it.

const KEYS = [
  ["↑ ↓ Home End", "walk the rows"], ["Enter", "open the pane, close it"], ["Space", "select"], ["Ctrl A", "select all that is shown"], ["/", "search"],
  ["s", "start or stop (all that are selected)"], ["r", "restart"], ["p", "pause or resume"], ["Delete", "remove, after a question"],
  ["l u t i e", "logs, use, processes, inspect, a shell"], ["Esc", "close the pane, drop the selection"], ["?", "this list"],
];

function skeleton(el) {
  const root = element("div", "pyct pyct-dashboard");
  const head = element("div", "pyct-bar");
  const tablist = element("div", "pyct-tabs");
  tablist.setAttribute("role", "tablist");
  tablist.setAttribute("aria-label", "what is shown");
  const field = element("input", "pyct-find");
  field.type = "search";
  field.placeholder = "search";
  const live = element("span", "pyct-live pyct-muted", "…");
  const keys = element("dl", "pyct-keys");
  for (const [key, does] of KEYS) {
    const pair = element("div");
    pair.append(element("dt", "", key), element("dd", "", does));
    keys.append(pair);
  }
  keys.hidden = true;
  const help = button("?", () => toggleHelp(), { label: "keys", quiet: true });
  help.setAttribute("aria-expanded", "false");
  function toggleHelp() {
    keys.hidden = !keys.hidden;
    help.setAttribute("aria-expanded", String(!keys.hidden));
  }
  head.append(tablist, field, live, help);
  const filters = group("pyct-filters", "which of them");
  const bulk = group("pyct-bulk", "what is selected");
  bulk.hidden = true;
  const place = element("div", "pyct-lists");
  const said = element("div", "pyct-said pyct-muted");
  said.setAttribute("role", "status");
  const region = element("section", "pyct-pane");
  region.hidden = true;
  root.append(head, keys, filters, bulk, place, said, region);
  el.append(root);
  return { root, tablist, field, live, filters, bulk, place, said, region, toggleHelp };
}

function group(className, label) {
  const made = element("div", `pyct-bar ${className}`);
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", label);
  return made;
}

function render({ model, el }) {
  const { ask, close: closeAsking, view } = asking(model);
  const { root, tablist, field, live, filters, bulk, place, said, region, toggleHelp } = skeleton(el);
  let offset = 0; // the kernel's clock before the page's, seconds
  let heard = Date.now();
  let known = false; // the kernel has told everything
  let ended = false;
  let quiet = 0;
  let trouble = ""; // why the kernel cannot look

  // What the parts share.
  const ui = {
    inView: true,
    courses: new Map(),
    bulk,
    list: null,
    now: () => Date.now() / 1000 + offset,
    send: (message) => model.send({ ...message, view }),
    tell(text) {
      clearTimeout(quiet);
      setText(said, text);
      quiet = setTimeout(() => setText(said, ""), 8000);
    },
    select: (line, on) => line.owner.select(line, on),
    focusLine: (line, move) => line.owner.focusLine(line, move),
    open: (line, pane, into) => ui.about.open(line, pane, into),
    changed: (line) => ui.about.describe(line),
  };
  ui.about = aboutPane(ui, region, model);
  ui.maker = lineMaker(ui);
  const chips = new Map();
  const lists = TABS.map((spec) => {
    const chip = element("button", "pyct-tab");
    chip.type = "button";
    chip.setAttribute("role", "tab");
    chip.append(element("span", "", spec.label), element("span", "pyct-count"));
    tablist.append(chip);
    const list = listOf(ui, spec, place);
    chips.set(list, chip);
    chip.addEventListener("click", () => choose(list));
    chip.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      own(event);
      const next = lists[(lists.indexOf(list) + step + lists.length) % lists.length];
      choose(next);
      chips.get(next).focus();
    });
    list.body.addEventListener("keydown", onKey);
    return list;
  });

  function choose(next) {
    ui.list = next;
    for (const [list, chip] of chips) {
      chip.setAttribute("aria-selected", String(list === next));
      chip.tabIndex = list === next ? 0 : -1;
      list.show(list === next);
    }
    field.value = next.text;
    field.setAttribute("aria-label", `search ${next.spec.label.toLowerCase()}`);
    filters.replaceChildren(
      ...next.spec.filters.map(([key, label]) => {
        const does = () => {
          next.filter = key;
          sift();
        };
        const chip = button(label, does, { quiet: true });
        chip.dataset.filter = key;
        chip.append(element("span", "pyct-count"));
        return chip;
      }),
    );
    sift();
  }

  function sift() {
    const counts = ui.list.sift();
    for (const [list, chip] of chips) setText(chip.lastChild, String(list.lines.size));
    for (const chip of filters.children) {
      const { filter } = chip.dataset;
      chip.setAttribute("aria-pressed", String(filter === ui.list.filter));
      setText(chip.lastChild, String(counts.get(filter)));
      chip.hidden = filter === "forgotten" && !counts.get(filter) && ui.list.filter !== filter;
    }
    ui.list.showBulk();
  }

  // -- keys

  function onKey(event) {
    const { list } = ui;
    const line = list.focused;
    if (!line || event.altKey || event.metaKey) return;
    const onRow = event.target === line.made;
    if (event.ctrlKey) {
      if (event.key !== "a") return;
      own(event);
      return list.selectAll(true);
    }
    const rows = list.visible();
    const at = rows.indexOf(line);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1, PageDown: at + 8, PageUp: at - 8 }[event.key];
    if (to !== undefined) {
      own(event);
      const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
      return next && list.focusLine(next, true);
    }
    if (event.target.closest(".pyct-below")) return;
    const { row } = line;
    const verb = list.spec.verbs.find((one) => one.key === event.key && one.when(row));
    const pane = list.spec.panes.find((one) => one.key === event.key && (!one.when || one.when(row)));
    if (onRow && event.key === "Enter") ui.open(line);
    else if (onRow && event.key === " ") list.select(line, !list.selected.has(row.id));
    else if (verb) list.byKey(verb, line);
    else if (pane) ui.open(line, pane, true);
    else return;
    own(event);
  }

  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inside = event.target.closest(".pyct-inner");
    const typing = inside || event.target.closest("input[type=search]");
    if (event.key === "/" && !typing) {
      event.preventDefault();
      field.focus();
    } else if (event.key === "?" && !typing) {
      toggleHelp();
    } else if (event.key === "Escape" && !inside) {
      if (ui.about.isOpen) ui.about.close(true);
      else if (ui.list.selected.size) ui.list.selectAll(false);
    }
    event.stopPropagation();
  });
  field.addEventListener("input", () => {
    ui.list.text = field.value;
    sift();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && field.value) {
      field.value = ui.list.text = "";
      sift();
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      const first = ui.list.visible()[0];
      if (first) ui.list.focusLine(first, true);
    } else {
      return;
    }
    own(event);
  });

  // -- what the kernel says

  const listeners = {
    rows(message) {
      offset = message.now - Date.now() / 1000;
      const list = lists.find((one) => one.spec.key === message.tab);
      if (!list) return;
      list.update(message);
      sift();
    },
    use(message) {
      lists[0].measure(message.rows);
      ui.list.tickAll();
    },
    said(message) {
      // What stands in a row that is seen needs no saying twice.
      const there = message.name && [...ui.list.lines.values()].some((line) => line.row.name === message.name && !line.made.hidden);
      ui.tell(!message.error ? `✓ ${message.text}` : there ? "" : `✗ ${message.name ? `${message.name}: ` : ""}${message.error}`);
    },
    pane: (message) => ui.about.received(message),
    trouble(message) {
      trouble = message.text;
    },
    stopped(message) {
      ended = true;
      root.classList.add("pyct-stopped");
      setText(live, `○ ${message.reason}`);
    },
  };

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
      for (const [id, [cpu, memory]] of Object.entries(message.course)) ui.courses.set(id, { cpu, memory });
      for (const list of lists) list.update({ rows: message.tabs[list.spec.key], gone: [] });
      sift();
    });
  }

  // What all of them use together.
  function together() {
    let [cpu, memory] = [0, 0];
    for (const course of ui.courses.values()) {
      cpu += course.cpu[course.cpu.length - 1] || 0;
      memory += course.memory[course.memory.length - 1] || 0;
    }
    return ui.courses.size ? ` · ${cpu.toFixed(0)} % CPU, ${bytes(memory * 1024)}` : "";
  }

  const watcher = setInterval(() => {
    if (ended) return;
    const silent = (Date.now() - heard) / 1000;
    if (trouble && silent <= 5) return setText(live, `△ ${trouble}`);
    setText(live, silent > 5 ? `○ no news for ${Math.round(silent)} s: is the kernel busy, or gone?` : `● live${together()}`);
    root.classList.toggle("pyct-stopped", silent > 5);
  }, 1000);
  const looker = new IntersectionObserver((entries) => {
    ui.inView = entries[entries.length - 1].isIntersecting;
    if (ui.inView) ui.list.tickAll();
  });
  const leave = () => ui.send({ kind: "bye" });
  window.addEventListener("pagehide", leave);
  choose(lists[0]);
  looker.observe(root);
  hello();
  return () => {
    clearInterval(watcher);
    clearTimeout(quiet);
    looker.disconnect();
    for (const list of lists) list.end();
    window.removeEventListener("pagehide", leave);
    ui.about.end();
    model.off("msg:custom", received);
    leave();
    closeAsking();
  };
}

export default { render };
