// A terminal of lines, where there is no library: a part of terminal.js, behind which it is put (terminal.py).

const MOST_LINES = 2000;
const WIDEST = 4096; // characters, after which a line is broken
const MOST_RUNS = 512; // pieces of one line that look different
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
  const hide = button("Hide", () => {
    const hidden = field.type === "text";
    field.type = hidden ? "password" : "text";
    hide.setAttribute("aria-pressed", String(hidden));
    field.focus();
  });
  hide.title = "hide what is typed, and keep it in no history: for passwords";
  hide.setAttribute("aria-pressed", "false");
  keys.push(hide);
  form.append(field, ...keys);
  place.append(output, form);
  const history = [];
  let at = 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.type === "text" && field.value && history[history.length - 1] !== field.value) history.push(field.value);
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
  let line = null; // where the last line stands
  let finished = []; // lines that are not drawn yet
  let frame = 0;
  function finish() {
    finished.push(runs(cells));
    if (finished.length > MOST_LINES) finished.shift();
    cells = [];
    column = 0;
  }
  // Once for each picture of the screen, however much has come: what is out of sight already is not drawn at all.
  function draw() {
    frame = 0;
    const follows = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    if (line) line.remove();
    line = drawnLine(runs(cells));
    output.append(...finished.map(drawnLine), line);
    finished = [];
    while (output.childElementCount > MOST_LINES) output.firstElementChild.remove();
    if (follows) output.scrollTop = output.scrollHeight;
  }
  function write(data, then) {
    for (const part of decoder.decode(data, { stream: true }).split(/(\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|[\n\r\b])/)) {
      if (part === "\n") finish();
      else if (part === "\r") column = 0;
      else if (part === "\b") column = Math.max(0, column - 1);
      else if (part.startsWith("\x1b")) style = part.endsWith("m") ? colored(style, part.slice(2, -1)) : style; // no cursor to move
      else {
        for (const character of part) {
          if (column >= WIDEST) finish();
          cells[column++] = [character, style];
        }
      }
    }
    frame ||= requestAnimationFrame(draw);
    then();
  }
  return {
    focus: () => field.focus(),
    fit: () => ({ rows: 24, columns: 100 }),
    resize() {},
    reset() {
      output.replaceChildren();
      line = null;
      [style, cells, column, finished] = [{}, [], 0, []];
    },
    write,
    enable(on) {
      for (const one of [field, ...keys]) one.disabled = !on;
    },
    close: () => cancelAnimationFrame(frame),
  };
}

// Neighbours of one style are one piece.
function runs(cells) {
  const found = [];
  let text = "";
  let last = null;
  for (const [character, its] of cells) {
    if (its !== last && found.length < MOST_RUNS) {
      if (text) found.push([text, last]);
      text = "";
      last = its;
    }
    text += character;
  }
  if (text) found.push([text, last]);
  return found;
}

function drawnLine(pieces) {
  const made = element("div", "pyct-line");
  for (const [text, its] of pieces) {
    const span = styled(its);
    span.textContent = text;
    made.append(span);
  }
  return made;
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
