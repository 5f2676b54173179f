// The view of an explored image: layers on the left, the files of the chosen one as a tree on the right.
// Everything that is shown is set as text, never as HTML: names come from images. Folders are asked for when they are opened.

const MORE = -1;

function render({ model, el }) {
  const root = element("div", "pyct pyct-explore");
  const title = element("div", "pyct-title");
  title.append(element("b", "", model.get("title")), element("span", "pyct-muted", " " + model.get("summary")));
  const panes = element("div", "pyct-panes");
  const layers = element("ul", "pyct-layers");
  layers.setAttribute("role", "listbox");
  layers.setAttribute("aria-label", "layers");
  const right = element("div", "pyct-right");
  const field = element("input", "pyct-find");
  field.type = "search";
  field.placeholder = "find in paths";
  field.setAttribute("aria-label", "find files whose path contains this");
  const tree = element("ul", "pyct-tree");
  tree.setAttribute("role", "tree");
  const said = element("div", "pyct-muted pyct-said");
  said.setAttribute("role", "status");
  const legend = element("div", "pyct-muted", "+ added   ~ changed   − removed");
  right.append(field, tree, said, legend);
  panes.append(layers, right);
  root.append(title, panes);
  el.append(root);

  let chosen = model.get("chosen");
  const { ask, close } = asking(model);

  // -- layers

  function choose(number, focus) {
    chosen = number;
    for (const option of layers.children) {
      const selected = Number(option.dataset.layer) === number;
      option.setAttribute("aria-selected", String(selected));
      option.tabIndex = selected ? 0 : -1;
      if (selected && focus) option.focus();
    }
    field.value = "";
    tree.setAttribute("aria-label", number ? `files of layer ${number}` : "files of all layers together");
    fill(tree, 0, 1, true);
  }

  for (const layer of model.get("layers")) {
    const option = element("li", "pyct-layer");
    option.setAttribute("role", "option");
    option.dataset.layer = layer.number;
    option.append(element("span", "pyct-number", layer.label), element("span", "pyct-size", layer.size));
    option.append(element("span", "pyct-counts", layer.counts), element("span", "pyct-step pyct-muted", layer.step));
    option.title = layer.step;
    option.addEventListener("click", () => choose(layer.number, true));
    layers.append(option);
  }
  layers.addEventListener("keydown", (event) => {
    const options = [...layers.children];
    const at = options.findIndex((option) => Number(option.dataset.layer) === chosen);
    const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: options.length - 1 }[event.key];
    if (next === undefined) return;
    own(event);
    const option = options[Math.min(options.length - 1, Math.max(0, next))];
    choose(Number(option.dataset.layer), true);
  });

  // -- the tree

  function fill(list, node, level, fresh, offset = 0) {
    if (list === tree) said.textContent = "…"; // a busy kernel answers when it is free
    ask({ kind: "open", layer: chosen, node, offset }, (found) => {
      if (found.layer !== chosen) return; // another layer was chosen meanwhile
      if (fresh) list.replaceChildren();
      const rows = found.rows.map((row) => item(row, level));
      list.append(...rows);
      if (found.left) {
        const more = item({ node: MORE, name: `… ${found.left} more`, sign: "", word: "", size: "", folder: false }, level);
        more.querySelector(".pyct-row").addEventListener("click", () => {
          const before = more.previousElementSibling;
          more.remove();
          if (before) focus(before);
          fill(list, node, level, false, offset + found.rows.length);
        });
        list.append(more);
      }
      if (list === tree) {
        said.textContent = found.rows.length ? "" : "it changes no files";
        const first = tree.querySelector('[role="treeitem"]');
        if (first && !tree.querySelector('[tabindex="0"]')) first.tabIndex = 0;
      }
    });
  }

  function item(row, level) {
    const made = element("li", "pyct-item");
    made.setAttribute("role", "treeitem");
    made.setAttribute("aria-level", String(level));
    made.setAttribute("aria-label", [row.name, row.word, row.size].filter(Boolean).join(", "));
    made.tabIndex = -1;
    made.dataset.level = level;
    const line = element("div", "pyct-row");
    line.style.paddingInlineStart = `${(level - 1) * 1.2}em`;
    line.append(element("span", "pyct-twist", row.folder ? "▸" : ""), element("span", `pyct-sign pyct-${row.word}`, row.sign));
    line.append(element("span", "pyct-bytes", row.size), element("span", `pyct-name${row.word === "removed" ? " pyct-gone" : ""}`, row.name));
    made.append(line);
    if (row.folder) {
      made.setAttribute("aria-expanded", "false");
      made.dataset.node = row.node;
    }
    line.addEventListener("click", () => {
      focus(made);
      if (row.folder) toggle(made);
    });
    return made;
  }

  function toggle(made, open) {
    const isOpen = made.getAttribute("aria-expanded") === "true";
    if (open === isOpen || !made.hasAttribute("aria-expanded")) return;
    made.setAttribute("aria-expanded", String(!isOpen));
    made.querySelector(".pyct-twist").textContent = isOpen ? "▸" : "▾";
    let below = made.querySelector(":scope > ul");
    if (below) {
      below.hidden = isOpen;
    } else {
      below = element("ul", "pyct-tree");
      below.setAttribute("role", "group");
      made.append(below);
      fill(below, Number(made.dataset.node), Number(made.dataset.level) + 1, true);
    }
  }

  function focus(made) {
    for (const other of tree.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    made.tabIndex = 0;
    made.focus();
  }

  tree.addEventListener("keydown", (event) => {
    const made = event.target.closest('[role="treeitem"]');
    if (!made) return;
    const seen = [...tree.querySelectorAll('[role="treeitem"]')].filter((one) => !one.parentElement.closest("ul[hidden]"));
    const at = seen.indexOf(made);
    const open = made.getAttribute("aria-expanded");
    let next = null;
    if (event.key === "ArrowDown") next = seen[at + 1];
    else if (event.key === "ArrowUp") next = seen[at - 1];
    else if (event.key === "Home") next = seen[0];
    else if (event.key === "End") next = seen[seen.length - 1];
    else if (event.key === "ArrowRight" && open === "false") toggle(made, true);
    else if (event.key === "ArrowRight" && open === "true") next = made.querySelector('[role="treeitem"]');
    else if (event.key === "ArrowLeft" && open === "true") toggle(made, false);
    else if (event.key === "ArrowLeft") next = made.parentElement.closest('[role="treeitem"]');
    else if (event.key === "Enter" || event.key === " ") made.querySelector(".pyct-row").click();
    else return;
    own(event);
    if (next) focus(next);
  });

  // -- finding

  let waiting = 0;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const text = field.value;
      if (!text) return fill(tree, 0, 1, true);
      ask({ kind: "find", layer: chosen, text }, (found) => {
        if (found.layer !== chosen || field.value !== text) return;
        tree.replaceChildren(...found.rows.map((row) => item(row, 1)));
        said.textContent = found.left ? `the first ${found.rows.length}, and ${found.left} more` : `${found.rows.length} found`;
        const first = tree.querySelector('[role="treeitem"]');
        if (first) first.tabIndex = 0;
      });
    }, 200);
  });
  field.addEventListener("keydown", (event) => event.stopPropagation());

  choose(chosen, false);
  return () => {
    clearTimeout(waiting);
    close();
  };
}

export default { render };
