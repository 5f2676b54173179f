// The view of a terminal. Where the package was built with xterm.js it draws a whole terminal; without, it shows lines and sends lines.
// What comes from the container has no control strings any more (text.py), and reaches the page as characters alone.

const ACKNOWLEDGE = 64 << 10; // bytes drawn until the kernel is told so
const PIECE = 16 << 10; // characters of one message of what is pasted

function render({ model, el }) {
  const root = element("section", "pyct pyct-terminal");
  root.setAttribute("aria-label", `terminal in ${model.get("container")}: ${model.get("title")}`);
  root.tabIndex = 0; // whoever opens it may give it the focus before it is drawn
  el.append(root);
  let view = null;
  let gone = false;
  const draw = (xterm) => {
    if (gone) return;
    view = shown(model, root, xterm);
    const awaited = document.activeElement === root;
    root.removeAttribute("tabindex");
    if (awaited) view.focus();
  };
  if (model.get("form") !== "full") draw(null);
  else libraryOf(model).then(draw, () => draw(null)); // a browser too old to unpack it: lines
  return () => {
    gone = true;
    view?.close();
  };
}

// The bar and the screen: of a whole terminal where there is `xterm`, else of lines.
function shown(model, root, xterm) {
  const full = xterm !== null;
  const bar = element("div", "pyct-bar");
  const state = element("span", "pyct-state");
  state.setAttribute("role", "status");
  const hint = element("span", "pyct-muted pyct-hint", full ? "Shift+Esc leaves" : "");
  const reader = button("Screen reader", () => {
    const on = reader.getAttribute("aria-pressed") !== "true";
    reader.setAttribute("aria-pressed", String(on));
    screen.read(on);
  });
  reader.classList.add("pyct-reader"); // seen when the keyboard comes to it
  reader.setAttribute("aria-pressed", "false");
  reader.hidden = !full; // lines are read anyway
  const again = button("Start again", () => tell({ kind: "again" }));
  const shut = button("Close", () => tell({ kind: "close" }));
  bar.append(element("b", "", model.get("container")), element("span", "pyct-what", model.get("title")), state, hint, reader, again, shut);
  const place = element("div", full ? "pyct-screen pyct-all-keys" : "pyct-screen");
  root.append(bar, place);

  const me = Math.random().toString(36).slice(2); // a model may have several views
  const tell = (message) => model.send({ ...message, view: me });
  let expected = -1; // how many bytes were written before the next; -1 until the screen was sent
  let drawn = 0;
  let told = 0;
  let asked = false;
  let replaying = false;

  const type = (text) => {
    if (replaying) return; // a program that asked for the cursor's place before has its answer
    for (let at = 0; at < text.length; ) {
      let end = Math.min(text.length, at + PIECE);
      if (end < text.length && (text.charCodeAt(end - 1) & 0xfc00) === 0xd800) end += 1; // a character of two halves stays whole
      tell({ kind: "input", text: text.slice(at, end) });
      at = end;
    }
  };
  const screen = full ? drawing(xterm, model, root, place, type, () => shut.focus()) : lines(place, type, tell);

  function measure(kind) {
    const size = screen.fit();
    if (size) tell({ kind, rows: size.rows, columns: size.columns });
    return Boolean(size);
  }
  function open() {
    if (!asked) asked = measure("open");
  }
  function seen() {
    if (drawn - told < ACKNOWLEDGE) return;
    told = drawn;
    tell({ kind: "seen", at: drawn });
  }
  function heard(message, buffers) {
    if (message.kind === "screen" && message.to === me) {
      asked = false;
      replaying = true;
      expected = drawn = told = message.at;
      said();
      screen.reset();
      screen.write(bytes(buffers[0]), () => (replaying = false));
    } else if (message.kind === "output" && expected >= 0) {
      if (message.at !== expected) return open();
      const data = bytes(buffers[0]);
      expected += data.length;
      const end = expected;
      screen.write(data, () => {
        if (drawn > end) return; // another screen was sent meanwhile
        drawn = end;
        seen();
      });
    } else if (message.kind === "lost") {
      open();
    } else if (message.kind === "full") {
      state.textContent = "△ the program does not read: what you typed last was not taken";
    }
  }
  function said() {
    const running = model.get("running");
    const text = model.get("said");
    const good = running || text === "exit code 0" || text === "closed";
    state.textContent = `${running ? "▶" : good ? "■" : "✗"} ${text}`;
    state.classList.toggle("pyct-bad-end", !good);
    again.hidden = running || !model.get("restarts");
    shut.hidden = !running;
    screen.enable(running);
  }
  function sized() {
    if (model.get("leader") === me) return;
    const [rows, columns] = model.get("size");
    if (rows) screen.resize(rows, columns);
  }
  // The kernel went, or this page lost it; when it answers, all is well again.
  const lost = () => (state.textContent = "△ the kernel that had this terminal does not answer: run the cell again");
  model.on("comm_live_update", lost);
  model.on("msg:custom", heard);
  model.on("change:said", said);
  model.on("change:running", said);
  model.on("change:size", sized);
  root.addEventListener("focusin", () => {
    if (expected >= 0 && model.get("leader") !== me) measure("size");
  });
  for (const kind of ["keydown", "keypress", "keyup", "paste"]) root.addEventListener(kind, (event) => event.stopPropagation());

  // The place on the page is known when it is shown, and changes with it.
  let waiting = 0;
  const observer = new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      if (expected < 0) open();
      else if (model.get("leader") === me) measure("size");
    });
  });
  observer.observe(place);
  said();
  const close = () => {
    cancelAnimationFrame(waiting);
    observer.disconnect();
    model.off("comm_live_update", lost);
    model.off("msg:custom", heard);
    model.off("change:said", said);
    model.off("change:running", said);
    model.off("change:size", sized);
    screen.close();
  };
  return { focus: () => screen.focus(), close };
}

function button(text, act) {
  const made = element("button", "pyct-button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

function bytes(buffer) {
  return new Uint8Array(buffer.buffer ?? buffer, buffer.byteOffset ?? 0, buffer.byteLength);
}

export default { render };
