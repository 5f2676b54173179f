// The view of a terminal. Where the package was built with xterm.js it draws a whole terminal; without, it shows lines and sends lines.
// What comes from the container has no control strings any more (text.py), and reaches the page as characters alone.

const ACKNOWLEDGE = 64 << 10; // bytes drawn until the kernel is told so
const PIECE = 16 << 10; // characters of one message of what is pasted

async function render({ model, el }) {
  const xterm = model.get("form") === "full" ? await libraryOf(model).catch(() => null) : null; // a browser too old to unpack it: lines
  const full = xterm !== null;
  const root = element("section", "pyct pyct-terminal");
  root.setAttribute("aria-label", `terminal in ${model.get("container")}: ${model.get("title")}`);
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab (lumino): the keys are the terminal's
  const bar = element("div", "pyct-bar");
  const state = element("span", "pyct-state");
  state.setAttribute("role", "status");
  const hint = element("span", "pyct-muted pyct-hint", full ? "Shift+Esc leaves" : "");
  const again = button("Start again", () => tell({ kind: "again" }));
  const shut = button("Close", () => tell({ kind: "close" }));
  bar.append(element("b", "", model.get("container")), element("span", "pyct-what", model.get("title")), state, hint, again, shut);
  const place = element("div", "pyct-screen");
  root.append(bar, place);
  el.append(root);

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
  return () => {
    cancelAnimationFrame(waiting);
    observer.disconnect();
    model.off("comm_live_update", lost);
    model.off("msg:custom", heard);
    model.off("change:said", said);
    model.off("change:running", said);
    model.off("change:size", sized);
    screen.close();
  };
}

// xterm.js: once for a page, whichever terminal asks first.
function libraryOf(model) {
  const key = Symbol.for("io.pycontainers.xterm");
  if (!globalThis[key]) {
    globalThis[key] = loaded(model);
    globalThis[key].catch(() => delete globalThis[key]); // another kernel may have it
  }
  return globalThis[key];
}

async function loaded(model) {
  const asset = await model.widget_manager.get_model(String(model.get("library")).replace("IPY_MODEL_", ""));
  const unpacked = new Blob([asset.get("code")]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(unpacked).text();
  const url = URL.createObjectURL(new Blob([text, "\nexport default PyctXterm;"], { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
    asset.set("code", new DataView(new ArrayBuffer(0))); // a notebook that is saved with its widgets need not hold it
  }
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

// -- a whole terminal

function drawing(xterm, model, root, place, type, leave) {
  const style = getComputedStyle(root.isConnected ? root : document.body);
  const terminal = new xterm.Terminal({
    cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    fontFamily: "monospace",
    fontSize: parseInt(style.getPropertyValue("--jp-code-font-size")) || 13,
    lineHeight: 1.15,
    scrollback: 5000, // the colours below can be read on their grounds; minimumContrastRatio takes the wrong ground for inverse text
    overviewRuler: { width: 8 }, // the scroll bar's
    linkHandler: { activate() {} }, // what the kernel should have taken out must not open a page
  });
  const fit = new xterm.FitAddon();
  terminal.loadAddon(fit);
  for (const number of [0, 1, 2, 4, 8, 10, 11, 12, 52]) terminal.parser.registerOscHandler(number, () => true);
  terminal.open(place);
  terminal.textarea.setAttribute("aria-label", `terminal input, ${model.get("container")}`);
  terminal.onData(type);
  terminal.onBinary(type);
  terminal.attachCustomKeyEventHandler((event) => {
    if (event.key === "Escape" && event.shiftKey) {
      if (event.type === "keydown") leave();
      own(event);
      return false;
    }
    const letter = event.key.toLowerCase();
    if (event.ctrlKey && !event.altKey && letter === "c" && (terminal.hasSelection() || event.shiftKey)) {
      if (event.type === "keydown" && terminal.hasSelection()) {
        document.execCommand("copy"); // xterm.js puts its selection there; the clipboard is asked for by a person's key alone
        own(event);
        terminal.clearSelection();
      }
      return false;
    }
    return !(event.ctrlKey && !event.altKey && letter === "v"); // the browser pastes; xterm.js brackets it where the program wants that
  });
  const dress = () => {
    terminal.options.theme = theme(root);
    const mono = getComputedStyle(root).getPropertyValue("--pyct-mono").trim();
    if (mono && !mono.startsWith("var(")) terminal.options.fontFamily = mono;
  };
  const watching = themes(dress);
  let dressed = false;
  return {
    fit() {
      if (!dressed && root.isConnected) dress(); // before that it has no style
      dressed = root.isConnected;
      const size = fit.proposeDimensions();
      if (!size || !Number.isFinite(size.cols) || !Number.isFinite(size.rows) || size.cols < 2) return null;
      terminal.resize(Math.min(size.cols, 1000), Math.min(Math.max(size.rows, 2), 500));
      return { rows: terminal.rows, columns: terminal.cols };
    },
    resize: (rows, columns) => terminal.resize(columns, rows),
    reset: () => terminal.reset(),
    write: (data, then) => terminal.write(data, then),
    enable(on) {
      terminal.options.disableStdin = !on;
      terminal.options.cursorBlink = on && !matchMedia("(prefers-reduced-motion: reduce)").matches;
    },
    close() {
      watching();
      terminal.dispose();
    },
  };
}

const COLORS = {
  light: {
    black: "#24292f", red: "#c4222e", green: "#1a7f37", yellow: "#8a6100", blue: "#0b5cc4", magenta: "#8239c0", cyan: "#0e7480", white: "#6e7781",
    brightBlack: "#57606a", brightRed: "#a40e26", brightGreen: "#116329", brightYellow: "#6a4c00", brightBlue: "#0848a0",
    brightMagenta: "#6a2a9f", brightCyan: "#0a5a64", brightWhite: "#32383f",
  },
  dark: {
    black: "#3b4048", red: "#ff7b72", green: "#57c765", yellow: "#e0b040", blue: "#6cb2ff", magenta: "#d2a0ff", cyan: "#56d4dd", white: "#c9d1d9",
    brightBlack: "#8b949e", brightRed: "#ffa198", brightGreen: "#7ee787", brightYellow: "#f2cc60", brightBlue: "#a5d0ff",
    brightMagenta: "#e2c5ff", brightCyan: "#9be9f0", brightWhite: "#ffffff",
  },
};

// The page's own colours as numbers: the library does not know CSS variables, nor a ground that is transparent.
function theme(root) {
  const ground = opaque(root);
  const dark = light(ground) < 0.5;
  const ink = getComputedStyle(root).color;
  const accent = dark ? "#6cb2ff" : "#0b5cc4";
  return {
    ...COLORS[dark ? "dark" : "light"],
    background: hex(ground),
    foreground: hex(numbers(ink)),
    cursor: accent,
    cursorAccent: hex(ground),
    selectionBackground: dark ? "#3a5a80" : "#b6d7ff",
    selectionInactiveBackground: dark ? "#33404f" : "#dbe9f8",
    scrollbarSliderBackground: dark ? "#ffffff26" : "#00000020",
    scrollbarSliderHoverBackground: dark ? "#ffffff40" : "#00000038",
    scrollbarSliderActiveBackground: dark ? "#ffffff55" : "#00000050",
  };
}

function numbers(color) {
  const found = color.match(/[\d.]+/g) || [];
  const [red = 0, green = 0, blue = 0, alpha = 1] = found.map(Number);
  return [red, green, blue, alpha];
}

function opaque(node) {
  for (let at = node; at; at = at.parentElement) {
    const color = numbers(getComputedStyle(at).backgroundColor);
    if (color[3] > 0.5) return color;
  }
  return [255, 255, 255, 1];
}

function light([red, green, blue]) {
  return (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
}

function hex(color) {
  return "#" + color.slice(0, 3).map((part) => Math.round(part).toString(16).padStart(2, "0")).join("");
}

// Call `then` when the page's theme may have changed; returns what ends it.
function themes(then) {
  let timers = [];
  const soon = () => {
    timers.forEach(clearTimeout);
    timers = [0, 100, 600].map((after) => setTimeout(then, after)); // a theme's file comes after its name
  };
  const observer = new MutationObserver(soon);
  const attributes = { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"] };
  observer.observe(document.body, attributes);
  observer.observe(document.documentElement, attributes);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", soon);
  return () => {
    timers.forEach(clearTimeout);
    observer.disconnect();
    scheme.removeEventListener("change", soon);
  };
}

// -- lines alone

const MOST_LINES = 2000;
const NAMED = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

function lines(place, type, tell) {
  const output = element("div", "pyct-lines");
  output.setAttribute("role", "log");
  output.tabIndex = 0;
  const form = element("form", "pyct-type");
  const field = element("input", "pyct-field");
  field.type = "text";
  field.autocomplete = "off";
  field.spellcheck = false;
  field.setAttribute("aria-label", "a line for the terminal");
  field.placeholder = "type a line, Enter sends it";
  const keys = [
    ["Ctrl-C", "\x03", "interrupt the program"],
    ["Ctrl-D", "\x04", "end of input"],
  ].map(([name, sent, title]) => {
    const made = button(name, () => type(sent));
    made.title = title;
    return made;
  });
  form.append(field, ...keys);
  place.append(output, form);
  const history = [];
  let at = 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value && history[history.length - 1] !== field.value) history.push(field.value);
    at = history.length;
    type(field.value + "\n");
    field.value = "";
  });
  field.addEventListener("keydown", (event) => {
    const next = { ArrowUp: at - 1, ArrowDown: at + 1 }[event.key];
    if (event.ctrlKey && event.key === "c" && field.selectionStart === field.selectionEnd) {
      own(event);
      type("\x03");
    } else if (event.ctrlKey && event.key === "d" && !field.value) {
      own(event);
      type("\x04");
    } else if (next !== undefined) {
      own(event);
      at = Math.max(0, Math.min(history.length, next));
      field.value = history[at] ?? "";
    }
  });

  const decoder = new TextDecoder();
  let style = {};
  let cells = []; // of the last line: [character, style] each
  let column = 0;
  let line = null;
  function fresh() {
    line = element("div", "pyct-line");
    output.append(line);
    if (output.childElementCount > MOST_LINES) output.firstElementChild.remove();
    cells = [];
    column = 0;
  }
  function draw() {
    line.replaceChildren();
    let last = null;
    let span = null;
    for (const [character, its] of cells) {
      if (span === null || its !== last) {
        span = styled(its);
        line.append(span);
        last = its;
      }
      span.textContent += character;
    }
  }
  function write(data, then) {
    const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    if (line === null) fresh();
    for (const part of decoder.decode(data, { stream: true }).split(/(\x1b\[[0-9;:]*m|[\n\r\b])/)) {
      if (part === "\n") {
        draw();
        fresh();
      } else if (part === "\r") column = 0;
      else if (part === "\b") column = Math.max(0, column - 1);
      else if (part.startsWith("\x1b[")) style = colored(style, part.slice(2, -1));
      else for (const character of part) cells[column++] = [character, style];
    }
    draw();
    if (follows) output.scrollTop = output.scrollHeight;
    then();
  }
  return {
    fit: () => ({ rows: 24, columns: 100 }),
    resize() {},
    reset() {
      output.replaceChildren();
      style = {};
      fresh();
    },
    write,
    enable(on) {
      for (const one of [field, ...keys]) one.disabled = !on;
    },
    close() {},
  };
}

function styled(its) {
  const names = [its.bold && "pyct-bold", its.under && "pyct-under", its.ink && `pyct-ink-${its.ink}`].filter(Boolean);
  return element("span", names.join(" "));
}

// The style after a colour escape; the sixteen named colours, bold and underlined.
function colored(before, codes) {
  const its = { ...before };
  const list = codes.split(/[;:]/).map(Number);
  for (let at = 0; at < list.length; at += 1) {
    const code = list[at];
    if (code === 0) for (const name of Object.keys(its)) delete its[name];
    else if (code === 1) its.bold = true;
    else if (code === 4) its.under = true;
    else if (code === 22) delete its.bold;
    else if (code === 24) delete its.under;
    else if (code >= 30 && code <= 37) its.ink = NAMED[code - 30];
    else if (code >= 90 && code <= 97) its.ink = NAMED[code - 90];
    else if (code === 39) delete its.ink;
    else if (code === 38 || code === 48) at += list[at + 1] === 5 ? 2 : 4;
  }
  return its;
}

export default { render };
