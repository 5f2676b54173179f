// The live figure itself; its numbers and its plotly are in stats_data.js, put in front of this.

// -- one model

export default () => {
  let store = []; // of each container its rows
  const views = new Set();
  const chosen = { range: { kind: "all" }, hidden: new Set() }; // stays when an output is drawn anew

  function take(parts) {
    if (parts === null) return;
    parts.forEach((part, n) => append((store[n] ||= emptyCourse()), part.times, part.columns));
    for (const view of views) view.changed();
  }

  return {
    initialize({ model }) {
      take(unpacked(model.get("points")));
      model.on("change:points", () => {
        const later = store;
        store = [];
        take(unpacked(model.get("points")));
        take(later); // what came while the page asked
      });
      model.on("msg:custom", (message, buffers) => {
        if (message.kind === "points" || message.kind === "all") take(unpacked(buffers && buffers[0]));
      });
    },

    render({ model, el }) {
      const view = new View(model, el, () => store, chosen);
      views.add(view);
      return () => {
        views.delete(view);
        view.close();
      };
    },
  };
};

// -- one view

class View {
  constructor(model, el, store, chosen) {
    Object.assign(this, { model, store, chosen, paused: false, waiting: 0, seen: true, held: null });
    el.classList.add("pyct", "pyct-stats");
    this.el = el;
    this.build();
    this.listeners = [
      ["change:panels", () => this.changed()], ["change:marks", () => this.changed()],
      ["change:courses", () => this.caption()], ["change:state", () => this.caption()],
    ];
    for (const [name, heard] of this.listeners) model.on(name, heard);
    // A figure that nobody sees is not drawn: a notebook may have many.
    this.watcher = new IntersectionObserver((entries) => {
      this.seen = entries.some((entry) => entry.isIntersecting);
      if (this.seen) this.changed();
    });
    this.watcher.observe(el);
    this.sizes = new ResizeObserver(() => this.resized());
    this.sizes.observe(this.grid);
    this.theme = new MutationObserver(() => this.changed());
    for (const place of [document.documentElement, document.body]) {
      this.theme.observe(place, { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-vscode-theme-kind"] });
    }
    this.caption();
    plotlyOf(model).then((plotly) => {
      this.plotly = plotly;
      this.changed();
    }, (error) => {
      this.trouble.textContent = `The charts cannot be drawn: ${error.message}. The figures above them are current.`;
      this.trouble.hidden = false;
    });
    this.changed();
  }

  get range() {
    return this.chosen.range;
  }

  set range(range) {
    this.chosen.range = range;
  }

  get hidden() {
    return this.chosen.hidden;
  }

  get courses() {
    return this.model.get("courses") || [];
  }

  get several() {
    return this.courses.length > 1;
  }

  build() {
    const bar = element("div", "pyct-stats-bar");
    this.title = element("span", "pyct-stats-title");
    this.state = element("span", "pyct-muted");
    this.state.setAttribute("role", "status");
    this.pause = this.button("Pause", "hold the picture; recording goes on", () => {
      this.paused = !this.paused;
      // What is held is what is there now; what comes meanwhile is kept beside it.
      this.held = this.paused ? this.store().map((course) => ({ times: [...course.times], columns: course.columns.map((one) => [...one]) })) : null;
      this.pause.setAttribute("aria-pressed", String(this.paused));
      this.caption();
      this.changed();
    });
    this.pause.setAttribute("aria-pressed", "false");
    const group = element("span", "pyct-stats-group");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "stretch of time");
    this.ranges = [["All", null], ["10 min", 600], ["1 min", 60]].map(([name, seconds]) => {
      const made = this.button(name, seconds ? `the last ${name}` : "from the beginning", () => {
        this.range = seconds ? { kind: "last", seconds } : { kind: "all" };
        this.changed();
      });
      made.dataset.seconds = seconds || 0;
      group.append(made);
      return made;
    });
    this.hint = element("span", "pyct-muted", "drag in a chart to zoom");
    bar.append(this.title, this.state, element("span", "pyct-stats-space"), this.hint, group, this.pause);
    this.names = element("div", "pyct-stats-names");
    this.names.setAttribute("role", "group");
    this.names.setAttribute("aria-label", "containers shown");
    this.grid = element("div", "pyct-stats-grid");
    this.trouble = element("p", "pyct-stats-note");
    this.trouble.hidden = true;
    this.events = element("ol", "pyct-stats-events");
    this.events.setAttribute("aria-label", "what happened");
    this.el.replaceChildren(bar, this.names, this.grid, this.trouble, this.events);
    this.panels = LINES.map(() => this.panel());
    this.grid.append(...this.panels.map((panel) => panel.box));
  }

  button(text, title, pressed) {
    const made = element("button", "", text);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", pressed);
    return made;
  }

  panel() {
    const box = element("section", "pyct-stats-panel");
    const head = element("div");
    const title = element("h4");
    const limit = element("span", "pyct-stats-limit");
    const legend = element("div", "pyct-stats-legend");
    const plot = element("div", "pyct-stats-plot");
    const note = element("p", "pyct-stats-note");
    head.append(title, limit);
    box.append(head, legend, plot, note);
    plot.setAttribute("role", "img");
    return { box, title, limit, legend, plot, note, drawn: false };
  }

  caption() {
    const courses = this.courses;
    const state = this.model.get("state");
    this.title.textContent = this.model.get("title") || (courses[0] ? `${courses[0].name}: ${courses[0].word}` : "");
    this.state.textContent = `● ${this.paused && state === "live" ? "paused" : state}`;
    this.pause.disabled = state !== "live" && !this.paused;
    if (this.several) this.listed();
  }

  // The containers of the figure: a colour each, and whether it is shown.
  listed() {
    const courses = this.courses;
    if (this.names.childElementCount !== courses.length) {
      this.names.replaceChildren(...courses.map((course, n) => {
        const made = this.button("", "show or hide it", () => {
          if (!this.hidden.delete(n)) this.hidden.add(n);
          this.listed();
          this.changed();
        });
        made.className = "pyct-stats-name";
        made.append(this.swatch(n, false), element("span", "", course.name), document.createTextNode(" "), element("span", "pyct-muted"));
        return made;
      }));
    }
    courses.forEach((course, n) => {
      const made = this.names.children[n];
      made.setAttribute("aria-pressed", String(!this.hidden.has(n)));
      const text = course.word.startsWith("Up ") && !/[(]/.test(course.word) ? "" : course.word; // what runs as it should says nothing more
      made.lastElementChild.textContent = text;
    });
  }

  stroke(color, aside) {
    const colors = this.model.get("colors");
    const dash = aside ? "dot" : DASHES[Math.floor(color / colors.length) % DASHES.length];
    return { color: colors[color % colors.length], dash, width: 1.6 };
  }

  swatch(color, aside) {
    const line = this.stroke(color, aside);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("class", "pyct-stats-swatch");
    svg.setAttribute("width", "18");
    svg.setAttribute("height", "6");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    for (const [name, value] of Object.entries({ d: "M0 3h18", stroke: line.color, "stroke-width": 2, "stroke-dasharray": STROKES[line.dash] })) {
      path.setAttribute(name, value);
    }
    svg.append(path);
    return svg;
  }

  // However much changes at once, it is drawn once, and not where nobody sees it.
  changed() {
    if (this.waiting || !this.seen) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const store = this.held || this.store();
    const declared = this.model.get("panels") || [];
    const last = Math.max(1, ...store.map((course) => course.times[course.times.length - 1] || 0), ...this.marks().map((mark) => mark.time));
    const zoomed = this.range.kind === "zoom";
    const range = zoomed ? [this.range.from, this.range.to] : [this.range.kind === "last" ? Math.max(0, last - this.range.seconds) : 0, last];
    for (const made of this.ranges) {
      const chosen = !zoomed && Number(made.dataset.seconds) === (this.range.seconds || 0);
      made.setAttribute("aria-pressed", String(chosen));
    }
    this.hint.textContent = zoomed ? `${clock(range[0])} to ${clock(range[1])}` : "drag in a chart to zoom";
    this.panels.forEach((panel, n) => declared[n] && this.drawPanel(panel, declared[n], this.lines(n, store), range, n));
    this.happened();
  }

  marks() {
    return this.model.get("marks") || [];
  }

  // What a panel shows: [{name, times, values, aside, color}].
  lines(n, store) {
    if (!this.several) {
      const course = store[0] || emptyCourse();
      return LINES[n].map(([name, column, aside, color]) => ({ name, times: course.times, values: course.columns[column], aside, color }));
    }
    return store.flatMap((course, color) => {
      if (this.hidden.has(color) || !this.courses[color]) return [];
      const name = this.courses[color].name;
      if (n === LINES.length - 1) {
        const some = [0, 2, 4].map((column) => course.columns[PRESSURE + column]);
        return [{ name, times: course.times, values: course.times.map((_, row) => Math.max(...some.map((values) => values[row]))), aside: false, color }];
      }
      return SHARED[n].map((column, at) => {
        const suffix = SHARED[n].length > 1 ? ` ${LINES[n][at][0]}` : "";
        return { name: name + suffix, times: course.times, values: course.columns[column], aside: at > 0, color };
      });
    });
  }

  drawPanel(panel, declared, lines, range, n) {
    panel.title.textContent = declared.title;
    panel.limit.textContent = declared.limit === null ? "" : `╌ limit ${words(declared.unit, declared.limit)}`;
    panel.note.textContent = declared.note;
    panel.note.hidden = !declared.note;
    panel.plot.hidden = panel.legend.hidden = Boolean(declared.note);
    if (declared.note) return;
    let top = 0;
    for (const line of lines) {
      for (let row = 0; row < line.times.length; row += 1) {
        if (line.times[row] >= range[0] && line.times[row] <= range[1] && line.values[row] > top) top = line.values[row];
      }
    }
    const limit = declared.limit !== null && declared.limit < Math.max(top, 1e-9) * 20 ? declared.limit : null;
    top = Math.max(top, limit || 0);
    this.legend(panel, declared, lines);
    panel.plot.setAttribute("aria-label", `${declared.title}: ` + lines.slice(0, 8).map((line) =>
      `${line.name} ${words(declared.unit, line.values[line.values.length - 1])}`).join(", ") + `; highest ${words(declared.unit, top)}`);
    if (!this.plotly) return;
    const [size, unit] = scaled(declared.unit, top);
    const ink = getComputedStyle(this.el).color;
    const traces = lines.map((line) => ({
      type: "scatter", mode: line.times.length > 1 ? "lines" : "markers", name: escaped(line.name), showlegend: false,
      x: line.times.map(moment), y: line.values.map((value) => (Number.isNaN(value) ? null : value / size)),
      line: this.stroke(line.color, line.aside), connectgaps: true,
      hovertemplate: `%{y:.4~g}${unit}<extra>${escaped(line.name)}</extra>`,
    }));
    const layout = this.layout(declared, { top: top / size, limit: limit === null ? null : limit / size, unit, ink, range, n });
    this.plotly.react(panel.plot, traces, layout, { displayModeBar: false, responsive: false, doubleClick: false, scrollZoom: false });
    if (!panel.drawn) {
      panel.drawn = true;
      panel.plot.on("plotly_relayout", (change) => this.zoomed(change));
      panel.plot.on("plotly_doubleclick", () => {
        this.range = { kind: "all" };
        this.changed();
      });
    }
  }

  layout(declared, { top, limit, unit, ink, range, n }) {
    const grid = { gridcolor: "rgba(128,128,128,.22)", zerolinecolor: "rgba(128,128,128,.4)", linecolor: "rgba(128,128,128,.5)" };
    const long = range[1] > 3600;
    const shapes = [], annotations = [];
    if (limit !== null) {
      shapes.push({ type: "line", xref: "x domain", yref: "y", x0: 0, x1: 1, y0: limit, y1: limit, line: { color: LIMIT_COLOR, width: 1, dash: "dash" } });
    }
    for (const mark of this.marks()) {
      // OOM kills where memory is; of several containers only what went wrong, or everything would be marks.
      if (mark.kind === "oom" ? n !== 1 : mark.name && !["end", "change"].includes(mark.kind)) continue;
      if (mark.time < range[0] || mark.time > range[1]) continue;
      const color = mark.kind === "oom" ? LIMIT_COLOR : "#808080", x = moment(mark.time);
      shapes.push({ type: "line", xref: "x", yref: "y domain", x0: x, x1: x, y0: 0, y1: 1, line: { color, width: 1, dash: "dot" } });
      if (n < 2) {
        annotations.push({
          text: mark.sign, hovertext: escaped(`${mark.name ? `${mark.name}: ` : ""}${mark.text}, ${clock(mark.time)}`), x, y: 1, xref: "x",
          yref: "y domain", yanchor: mark.kind === "oom" ? "top" : "bottom", showarrow: false, font: { color, size: 10 }, captureevents: false,
        });
      }
    }
    return {
      height: 150, margin: { l: 58, r: 8, t: 14, b: 22 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, size: 11, family: "inherit" }, hovermode: "x unified", dragmode: "zoom", showlegend: false, shapes, annotations,
      hoverlabel: { bgcolor: ground(this.el), bordercolor: "rgba(128,128,128,.5)", font: { color: ink, size: 11 }, namelength: 24 },
      xaxis: {
        ...grid, type: "date", range: range.map(moment), autorange: false, nticks: 5, hoverformat: "%-H:%M:%S.%1f",
        tickformatstops: [
          { dtickrange: [null, 1000], value: "%-M:%S.%1f" }, { dtickrange: [1000, 60000], value: long ? "%-H:%M:%S" : "%-M:%S" },
          { dtickrange: [60000, 86400000], value: long ? "%-H:%M" : "%-M:%S" }, { dtickrange: [86400000, null], value: "day %-j" },
        ],
      },
      yaxis: {
        ...grid, fixedrange: true, range: [0, (top || 1) * 1.08], ticksuffix: unit, nticks: 5, tickformat: declared.unit === "count" ? ",d" : ".4~g",
        ...(declared.unit === "count" ? { dtick: Math.max(1, Math.ceil(top / 4)) } : {}),
      },
    };
  }

  // A stretch that somebody chose by dragging: all panels show it, and it stays while new data come.
  zoomed(change) {
    const from = change["xaxis.range[0]"], to = change["xaxis.range[1]"];
    if (from === undefined) return;
    const seconds = (value) => ((typeof value === "number" ? value : Date.parse(`${String(value).replace(" ", "T")}Z`)) - EPOCH) / 1000;
    this.range = { kind: "zoom", from: Math.max(0, seconds(from)), to: seconds(to) };
    this.changed();
  }

  legend(panel, declared, lines) {
    if (this.several) {
      let best = null, most = 0;
      const end = Math.max(0, ...lines.map((line) => line.times[line.times.length - 1] || 0));
      for (const line of lines) {
        const value = line.values[line.values.length - 1];
        if (value > most && line.times[line.times.length - 1] > end - 3) [best, most] = [line, value]; // one that has ended uses nothing now
      }
      panel.legend.replaceChildren(element("span", "pyct-muted", best ? `most now: ${best.name}, ${words(declared.unit, most)}` : ""));
      return;
    }
    const shown = lines.filter((line) => !(line.aside && lines.length > 2));
    const parts = shown.map((line) => {
      const part = element("span");
      part.append(this.swatch(line.color, line.aside), `${line.name} ${words(declared.unit, line.values[line.values.length - 1])}`);
      return part;
    });
    if (shown.length < lines.length) parts.push(element("span", "pyct-muted", "┄ all tasks"));
    panel.legend.replaceChildren(...parts);
  }

  happened() {
    this.events.replaceChildren(...this.marks().map((mark) => {
      const made = element("li", mark.kind === "oom" ? "pyct-bad" : "");
      made.textContent = `${mark.sign} ${mark.name ? `${mark.name}: ` : ""}${mark.text} at ${clock(mark.time)}`;
      return made;
    }));
  }

  resized() {
    const width = this.grid.clientWidth;
    if (!this.plotly || width === this.width || !width) return;
    this.width = width;
    for (const panel of this.panels) if (panel.drawn && !panel.plot.hidden) this.plotly.Plots.resize(panel.plot);
  }

  close() {
    cancelAnimationFrame(this.waiting);
    for (const watcher of [this.watcher, this.sizes, this.theme]) watcher.disconnect();
    for (const [name, heard] of this.listeners) this.model.off(name, heard);
    for (const panel of this.panels) if (panel.drawn) this.plotly.purge(panel.plot);
  }
}
