// Small parts of the dashboard: icons, buttons, ages, sparklines, charts, trees, tables. Everything is set as text.

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  start: "M4 2.5v11l9.5-5.5z",
  stop: "M3.5 3.5h9v9h-9z",
  restart: "M8 2.5V0l4 3.5L8 7V4.5a4 4 0 1 0 4 4h2a6 6 0 1 1-6-6z",
  pause: "M4 2.5h3v11H4zM9 2.5h3v11H9z",
  unpause: "M3 2.5h2.5v11H3zM7 2.5v11l7-5.5z",
  remove: "M6 1h4l.6 1.5H14V4H2V2.500h3.400zM3 5h10l-.8 10H3.800zM5.700 7l.4 6h1.200l-.2-6zM9 7l-.2 6h1.200l.4-6z",
  close: "M3.400 2L8 6.600 12.600 2 14 3.400 9.400 8l4.600 4.600-1.400 1.400L8 9.400 3.400 14 2 12.600 6.600 8 2 3.400z",
};

function drawn(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function icon(name) {
  const made = drawn("svg", { viewBox: "0 0 16 16", class: "pyct-icon", "aria-hidden": "true" });
  made.append(drawn("path", { d: ICONS[name] }));
  return made;
}

// A button with a word, an icon, or both; what it does is always said.
function button(text, does, { sign, label, quiet, danger } = {}) {
  const made = element("button", `pyct-button${quiet ? " pyct-quiet" : ""}${danger ? " pyct-danger" : ""}`);
  made.type = "button";
  if (sign) made.append(icon(sign));
  if (text) made.append(element("span", "", text));
  if (label) {
    made.setAttribute("aria-label", label);
    made.title = label;
  }
  made.addEventListener("click", (event) => {
    event.stopPropagation();
    does(event);
  });
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function ago(seconds) {
  const units = [["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const [unit, size] of units) {
    if (seconds >= size * (unit === "week" ? 2 : 1)) {
      const count = Math.floor(seconds / size);
      return `${count} ${unit}${count === 1 ? "" : "s"}`;
    }
  }
  const count = Math.max(0, Math.floor(seconds));
  return `${count} second${count === 1 ? "" : "s"}`;
}

function bytes(value) {
  if (value < 1023.5) return `${Math.round(value)} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    value /= 1024;
    if (value < 1023.95) return `${value.toFixed(1)} ${unit}`;
  }
  return `${(value / 1024).toFixed(1)} TiB`;
}

// A course as one small picture; its last value stands beside it as text.
function sparkline(width, height) {
  const made = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "pyct-spark", "aria-hidden": "true" });
  const limit = drawn("path", { class: "pyct-spark-limit" });
  const area = drawn("path", { class: "pyct-spark-area" });
  const line = drawn("path", { class: "pyct-spark-line" });
  made.append(limit, area, line);
  function draw(values, points, top, bound) {
    if (values.length < 2) {
      area.setAttribute("d", "");
      line.setAttribute("d", "");
      return;
    }
    const step = width / (points - 1);
    const begin = width - step * (values.length - 1);
    const path = values.map((value, place) => `${(begin + step * place).toFixed(1)} ${(height - 1 - (height - 2) * Math.min(1, value / top)).toFixed(1)}`);
    line.setAttribute("d", `M${path.join("L")}`);
    area.setAttribute("d", `M${begin.toFixed(1)} ${height}L${path.join("L")}L${width} ${height}Z`);
    limit.setAttribute("d", bound && bound <= top ? `M0 ${(height - 1 - (height - 2) * (bound / top)).toFixed(1)}H${width}` : "");
  }
  return { made, draw };
}

// What a line is drawn against: a limit that is far above the use would press it flat.
function ceiling(values, limit, least) {
  const peak = Math.max(least, ...values);
  return limit && limit < peak * 20 ? Math.max(limit, peak) * 1.05 : peak * 1.15;
}

function table(titles, rows, left, name) {
  const made = element("table", "pyct-table");
  made.setAttribute("aria-label", name);
  const head = made.createTHead().insertRow();
  for (const title of titles) {
    const cell = element("th", "", title);
    cell.scope = "col";
    head.append(cell);
  }
  const body = made.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    for (const cell of row) line.append(element("td", "", String(cell)));
  }
  if (left) body.insertRow().append(element("td", "pyct-muted", `… ${left} more`));
  return made;
}

// A document as a tree (WAI-ARIA's pattern): arrows walk, right opens, left closes. What is closed is not made yet.
function documentTree(name) {
  const root = element("ul", "pyct-tree");
  root.setAttribute("role", "tree");
  root.setAttribute("aria-label", name);
  const open = new Set(["/labels", "/ports", "/resources", "/exit"]);

  function fill(list, value, path, level) {
    const entries = Array.isArray(value) ? value.map((one, place) => [String(place), one]) : Object.entries(value);
    for (const [key, one] of entries) list.append(item(key, one, `${path}/${key}`, level));
  }

  function item(key, value, path, level) {
    const inner = value !== null && typeof value === "object";
    const size = inner ? Object.keys(value).length : 0;
    const made = element("li", "pyct-item");
    made.setAttribute("role", "treeitem");
    made.setAttribute("aria-level", String(level));
    made.tabIndex = -1;
    made.dataset.path = path;
    const row = element("div", "pyct-leaf");
    row.style.paddingInlineStart = `${(level - 1) * 1.2}em`;
    const twist = element("span", "pyct-twist", size ? "▸" : "");
    row.append(twist, element("span", "pyct-key", key));
    const said = inner ? (size ? `${Array.isArray(value) ? "list of " : ""}${size}` : Array.isArray(value) ? "[]" : "{}") : value === "" ? "“”" : String(value);
    row.append(element("span", inner || value === null ? "pyct-muted" : "pyct-value", said));
    if (typeof value === "number" && value > 1e9 && ["created", "started", "finished"].includes(key)) {
      row.append(element("span", "pyct-muted", new Date(value * 1000).toLocaleString()));
    }
    made.append(row);
    let below = null;
    function toggle(on) {
      if (!size || (made.getAttribute("aria-expanded") === "true") === on) return;
      made.setAttribute("aria-expanded", String(on));
      twist.textContent = on ? "▾" : "▸";
      if (on) open.add(path);
      else open.delete(path);
      if (!below && on) {
        below = element("ul", "pyct-tree");
        below.setAttribute("role", "group");
        fill(below, value, path, level + 1);
        made.append(below);
      }
      if (below) below.hidden = !on;
    }
    if (size) {
      made.setAttribute("aria-expanded", "false");
      if (open.has(path)) toggle(true);
    }
    made.toggle = toggle;
    row.addEventListener("click", () => {
      walk(made);
      toggle(made.getAttribute("aria-expanded") !== "true");
    });
    return made;
  }

  function walk(made) {
    for (const other of root.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    made.tabIndex = 0;
    made.focus();
  }

  root.addEventListener("keydown", (event) => {
    const made = event.target.closest('[role="treeitem"]');
    if (!made) return;
    const seen = [...root.querySelectorAll('[role="treeitem"]')].filter((one) => !one.parentElement.closest("ul[hidden]"));
    const at = seen.indexOf(made);
    const opened = made.getAttribute("aria-expanded");
    let next = null;
    if (event.key === "ArrowDown") next = seen[at + 1];
    else if (event.key === "ArrowUp") next = seen[at - 1];
    else if (event.key === "Home") next = seen[0];
    else if (event.key === "End") next = seen[seen.length - 1];
    else if (event.key === "ArrowRight" && opened === "false") made.toggle(true);
    else if (event.key === "ArrowRight" && opened) next = made.querySelector('[role="treeitem"]');
    else if (event.key === "ArrowLeft" && opened === "true") made.toggle(false);
    else if (event.key === "ArrowLeft") next = made.parentElement.closest('[role="treeitem"]');
    else if (event.key === "Enter" || event.key === " ") made.toggle(opened !== "true");
    else return;
    own(event);
    if (next) walk(next);
  });

  function show(value) {
    const focused = root.contains(document.activeElement) ? document.activeElement.dataset.path : null;
    root.replaceChildren();
    fill(root, value, "", 1);
    const again = [...root.querySelectorAll('[role="treeitem"]')].find((one) => one.dataset.path === focused);
    if (again) walk(again);
    else if (root.firstElementChild) root.firstElementChild.tabIndex = 0;
  }
  return { made: root, show };
}
