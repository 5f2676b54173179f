// A whole terminal, drawn by xterm.js in the page's own colours: a part of terminal.js, behind which it is put (terminal.py).

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
    focus: () => terminal.focus(),
    read: (on) => (terminal.options.screenReaderMode = on), // what is written is announced, and the screen can be walked through
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
    overviewRulerBorder: "#00000000",
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
