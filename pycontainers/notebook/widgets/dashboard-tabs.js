// What each tab of the dashboard is: one declaration. `cells(tools)` makes a row's cells once and returns how they are filled; what a
// verb is for, when it makes sense, and what is asked before; the panes of one entry. Another tab is another entry of this list.

const ACTIVE = ["starting", "running", "paused", "restarting"];
const STATES = ["running", "starting", "restarting", "paused", "created", "exited"];
const active = (row) => ACTIVE.includes(row.state);

function cell(className) {
  const made = element("div", `pyct-cell ${className}`);
  made.setAttribute("role", "gridcell");
  return made;
}

function lines(made) {
  const first = element("div", "pyct-first");
  const second = element("div", "pyct-second pyct-muted");
  made.append(first, second);
  return [first, second];
}

// The state in two lines: what it is, and since when, or how it feels.
function stateLines(row, now) {
  const age = row.since ? ago(now - row.since) : "";
  if (row.busy) return [`… ${row.busy}`, ""];
  if (row.state === "running") return [`${row.icon} Up ${age}`, ""];
  return [`${row.icon} ${row.word}`, age && (row.state === "paused" ? `up ${age}` : `${age} ago`)];
}

const HEALTH = { healthy: ["♥", "good"], unhealthy: ["✗", "bad"], starting: ["…", "muted"] };

function courseCell(name) {
  const made = cell("pyct-use");
  const value = element("span", "pyct-number");
  const spark = sparkline(80, 24);
  made.append(spark.made, value);
  return {
    made,
    fill(values, limit, least, text) {
      made.setAttribute("aria-label", values.length ? `${name} ${text}` : `${name}: not running`);
      setText(value, values.length ? text : "");
      spark.made.classList.toggle("pyct-none", values.length === 0);
      if (values.length) spark.draw(values, 60, ceiling(values, limit, least), limit);
    },
  };
}

const CONTAINERS = {
  key: "containers",
  label: "Containers",
  one: "container",
  template: "1.6em minmax(9em, 2fr) minmax(9em, 1fr) 9.5em 10.5em minmax(6em, 1fr) 8.2em",
  columns: ["Name", "State", "CPU", "Memory", "Ports", "Actions"],
  // What a title sorts by; `moves`: it changes from second to second; `down`: the greatest first.
  orders: {
    Name: { by: (row) => row.name },
    State: { by: (row) => STATES.indexOf(row.state) * 1e12 - row.since },
    CPU: { by: (row, course) => (course ? course.cpu[course.cpu.length - 1] : -1), moves: true, down: true },
    Memory: { by: (row, course) => (course ? course.memory[course.memory.length - 1] : -1), moves: true, down: true },
  },
  none: "No containers yet. The first one:  %container run -d --name web -p 8080:80 host python3 -m http.server 80",
  filters: [
    ["all", "All", () => true],
    ["running", "Running", active],
    ["ended", "Not running", (row) => !active(row)],
    ["forgotten", "△ Forgotten?", (row) => row.forgotten.length > 0],
  ],
  text: (row) =>
    [row.name, row.id, row.image, row.state, row.word, row.health, row.notebook, row.labels, row.command, ...row.ports.map((port) => port.whole)].join(" "),
  describe: (row) => [row.image, row.id.slice(0, 12), row.command, row.address, row.notebook && `from ${row.notebook}${row.lost ? " (gone)" : ""}`],
  notes: (row) => [...row.forgotten.map((line) => `forgotten? ${line}`), ...row.notes],
  verbs: [
    { verb: "start", label: "Start", sign: "start", key: "s", when: (row) => ["created", "exited"].includes(row.state) },
    { verb: "stop", label: "Stop", sign: "stop", key: "s", when: active },
    { verb: "restart", label: "Restart", sign: "restart", key: "r", when: active },
    { verb: "pause", label: "Pause", sign: "pause", key: "p", when: (row) => row.state === "running" },
    { verb: "unpause", label: "Resume", sign: "unpause", key: "p", when: (row) => row.state === "paused" },
    {
      verb: "remove", label: "Remove", sign: "remove", key: "Delete", danger: true, when: () => true,
      ask: (rows) => {
        const live = rows.filter(active).length;
        const what = rows.length === 1 ? rows[0].name : `${rows.length} containers`;
        const who = rows.length === 1 ? "It is" : live === 1 ? "One of them is" : `${live} of them are`;
        return `Remove ${what}?${live ? ` ${who} running, and ended first.` : ""} What was written inside is lost.`;
      },
    },
  ],
  panes: [
    { pane: "logs", label: "Logs", key: "l", make: logPane },
    { pane: "stats", label: "Stats", key: "u", make: statsPane },
    { pane: "processes", label: "Processes", key: "t", make: ({ name }) => tablePane({ name: `processes of ${name}`, empty: "no processes: it does not run" }) },
    { pane: "inspect", label: "Inspect", key: "i", make: inspectPane },
    { pane: "terminal", label: "Terminal", key: "e", make: (tools) => widgetPane({ ...tools, wait: "opening a shell …" }), when: (row) => row.state === "running" },
  ],
  cells() {
    const name = cell("pyct-name");
    const [title, below] = lines(name);
    const state = cell("pyct-state");
    const [word, health] = lines(state);
    const cpu = courseCell("CPU");
    const memory = courseCell("memory");
    const ports = cell("pyct-ports");
    let shownPorts = "";
    return {
      made: [name, state, cpu.made, memory.made, ports],
      fill(row) {
        setText(title, row.name);
        setText(below, row.image + (row.notebook ? ` · ${row.notebook}${row.lost ? " (gone)" : ""}` : ""));
        name.title = [row.name, row.image, row.command, row.notebook].filter(Boolean).join("\n");
        word.className = `pyct-first pyct-tone-${row.tone}`;
        health.className = `pyct-second pyct-tone-${(HEALTH[row.health] || ["", "muted"])[1]}`;
        const now = JSON.stringify(row.ports);
        if (now !== shownPorts) ports.replaceChildren(...row.ports.map(portLink));
        shownPorts = now;
      },
      // Every second: how long, and what it uses.
      tick(row, now, course) {
        const [first, second] = stateLines(row, now);
        const feels = row.health ? `${(HEALTH[row.health] || [""])[0]} ${row.health === "starting" ? "health: starting" : row.health}` : "";
        setText(word, first);
        setText(health, feels || second);
        const percent = course ? course.cpu[course.cpu.length - 1] : 0;
        const used = course ? course.memory[course.memory.length - 1] * 1024 : 0;
        cpu.fill(course ? course.cpu : [], row.cpus * 100, 10, `${percent.toFixed(1)} %`);
        memory.fill(course ? course.memory : [], row.memory / 1024, 1024, bytes(used) + (row.memory ? ` of ${bytes(row.memory).replace(".0 ", " ")}` : ""));
      },
    };
  },
};

function portLink(port) {
  if (!/^(https?:\/\/|\/)/.test(port.url)) {
    const made = element("span", "pyct-port pyct-muted", port.text);
    made.title = [port.whole, port.hint].filter(Boolean).join("\n");
    return made;
  }
  const made = element("a", "pyct-port", port.text);
  made.href = port.url;
  made.target = "_blank";
  made.rel = "noopener noreferrer";
  made.title = port.whole;
  made.tabIndex = -1;
  made.addEventListener("click", (event) => event.stopPropagation());
  return made;
}

const IMAGES = {
  key: "images",
  label: "Images",
  one: "image",
  template: "1.6em minmax(12em, 3fr) 9em 6em minmax(8em, 1.5fr) 3em",
  columns: ["Name", "Created", "Size", "Used by", "Actions"],
  orders: {
    Name: { by: (row) => row.name },
    Created: { by: (row) => row.created, down: true },
    Size: { by: (row) => row.size, down: true },
    "Used by": { by: (row) => row.uses, down: true },
  },
  none: "No images yet. A cell builds one (%%container build -t NAME), %container pull NAME fetches one.",
  filters: [
    ["all", "All", () => true],
    ["used", "In use", (row) => row.uses > 0],
    ["unused", "Not in use", (row) => row.uses === 0],
  ],
  text: (row) => [...row.names, row.id, ...row.used].join(" "),
  describe: (row) => [...row.names, row.id.slice(0, 12)],
  notes: () => [],
  verbs: [
    {
      verb: "remove", label: "Remove", sign: "remove", key: "Delete", danger: true, when: () => true,
      ask: (rows) => (rows.length === 1 ? `Remove ${rows[0].name}${rows[0].names.length > 1 ? ` and its ${rows[0].names.length - 1} other names` : ""}?` : `Remove ${rows.length} images?`),
    },
  ],
  panes: [
    { pane: "explore", label: "Explore", key: "l", make: (tools) => widgetPane({ ...tools, wait: "reading its layers …" }) },
    { pane: "history", label: "History", key: "h", make: ({ name }) => tablePane({ name: `history of ${name}`, empty: "no history" }) },
    { pane: "inspect", label: "Inspect", key: "i", make: inspectPane },
  ],
  cells() {
    const name = cell("pyct-name");
    const [title, below] = lines(name);
    const [created, size, used] = [cell(""), cell("pyct-number"), cell("pyct-users")];
    return {
      made: [name, created, size, used],
      fill(row) {
        setText(title, row.name);
        const others = row.names.length > 1 ? ` · also ${row.names.slice(1).join(", ")}` : "";
        setText(below, row.id.slice(0, 12) + (row.host ? " · on this machine’s system" : "") + others);
        name.title = row.names.join("\n");
        setText(size, bytes(row.size));
        const more = row.uses > 3 ? ` and ${row.uses - 3} more` : "";
        setText(used, row.uses ? row.used.slice(0, 3).join(", ") + more : "–");
        used.title = row.used.join(", ");
      },
      tick(row, now) {
        setText(created, row.busy ? `… ${row.busy}` : row.created ? `${ago(now - row.created)} ago` : "");
      },
    };
  },
};

const TABS = [CONTAINERS, IMAGES];
