// The pane about one entry, below the rows: its facts, and one of several views of it (dashboard-panes.js).

function aboutPane(ui, region, model) {
  let opened = null; // { owner, id, pane, number, shown, facts, content }
  let number = 0;

  function open(line, pane = null, into = false) {
    const { spec } = line.owner;
    if (isOpen(line) && !pane) return close(true);
    const fit = spec.panes.filter((one) => !one.when || one.when(line.row));
    // Going from row to row keeps the view, but for a shell: that is opened by who asks for it.
    const kept = opened && fit.find((one) => one.pane === opened.pane && one.pane !== "terminal");
    const wanted = pane || kept || fit[0];
    if (opened) opened.shown.close();
    number += 1;
    const more = (question) => ui.send({ kind: "more", ...question });
    const shown = wanted.make({ name: line.row.name, model, into: into || wanted.pane === "terminal", more });
    const facts = element("div", "pyct-facts pyct-muted");
    const top = element("div", "pyct-bar");
    const leave = button("", () => close(true), { sign: "close", label: `close the pane of ${line.row.name}`, quiet: true });
    top.append(element("b", "pyct-pane-title", line.row.name), chipsOf(line, fit, wanted), leave);
    const content = element("div", "pyct-content");
    content.setAttribute("role", "tabpanel");
    content.setAttribute("aria-label", `${wanted.label} of ${line.row.name}`);
    content.append(shown.made);
    region.replaceChildren(top, facts, content);
    region.setAttribute("aria-label", `about ${line.row.name}`);
    region.hidden = false;
    opened = { owner: line.owner, id: line.row.id, pane: wanted.pane, number, shown, facts, content, line };
    for (const one of line.owner.lines.values()) mark(one, one === line);
    describe(line);
    ui.send({ kind: "open", tab: spec.key, pane: wanted.pane, id: line.row.id, number });
    if (into && shown.focus) shown.focus();
  }

  function chipsOf(line, fit, wanted) {
    const chips = element("div", "pyct-tabs");
    chips.setAttribute("role", "tablist");
    chips.setAttribute("aria-label", `about ${line.row.name}`);
    for (const one of line.owner.spec.panes) {
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
    return chips;
  }

  function isOpen(line) {
    return Boolean(opened) && opened.line === line;
  }

  function mark(line, on) {
    line.made.classList.toggle("pyct-open", on);
    if (on) line.made.setAttribute("aria-current", "true");
    else line.made.removeAttribute("aria-current");
  }

  function describe(line) {
    const { spec } = line.owner;
    const facts = spec.describe(line.row).filter(Boolean).map((fact) => element("span", "pyct-fact", fact));
    const notes = spec.notes(line.row).map((note) => element("div", "pyct-tone-warn", `△ ${note}`));
    opened.facts.replaceChildren(...facts, ...notes);
    region.querySelectorAll(":scope > .pyct-bar [role=tab]").forEach((chip, place) => {
      const { when } = spec.panes[place];
      chip.disabled = Boolean(when && !when(line.row));
    });
  }

  function close(back) {
    if (!opened) return;
    const { line } = opened;
    opened.shown.close();
    ui.send({ kind: "close" });
    opened = null;
    region.hidden = true;
    region.replaceChildren();
    mark(line, false);
    if (back && line.made.isConnected) ui.focusLine(line, true);
  }

  function received(message) {
    if (!opened || message.number !== opened.number) return;
    if (!message.error) return opened.shown.show(message);
    const made = element("div", "pyct-tone-bad", `✗ ${message.error}`);
    made.setAttribute("role", "alert");
    opened.content.replaceChildren(made, element("div", "pyct-muted", message.hint));
  }

  return {
    open,
    close,
    received,
    describe: (line) => isOpen(line) && describe(line),
    gone: (line) => isOpen(line) && setText(opened.facts, `${line.row.name} was removed`),
    end: () => opened && opened.shown.close(),
    get isOpen() { return Boolean(opened); },
  };
}
