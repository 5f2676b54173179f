// A terminal of lines, where there is no library: a part of terminal.js, behind which it is put (terminal.py).

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
    for (const part of decoder.decode(data, { stream: true }).split(/(\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|[\n\r\b])/)) {
      if (part === "\n") {
        draw();
        fresh();
      } else if (part === "\r") column = 0;
      else if (part === "\b") column = Math.max(0, column - 1);
      else if (part.startsWith("\x1b")) style = part.endsWith("m") ? colored(style, part.slice(2, -1)) : style; // no cursor to move
      else for (const character of part) cells[column++] = [character, style];
    }
    draw();
    if (follows) output.scrollTop = output.scrollHeight;
    then();
  }
  return {
    focus: () => field.focus(),
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
