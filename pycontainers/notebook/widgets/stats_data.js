// What containers use, drawn by plotly. The points of all views of a model are kept once; what comes is appended, what is old is thinned.

// The columns of a row, in the order of stats.py.
const CPU = 0, THROTTLED = 1, MEMORY = 2, CACHE = 3, RX = 4, TX = 5, READ = 6, WRITTEN = 7, PIDS = 8, PRESSURE = 9, COLUMNS = 15;
const MOST = 1200; // rows of one container
const KEPT = 400; // of them the newest are never thinned
const EPOCH = 63072000000; // the begin on plotly's axis of time: 1972; in the first seconds of 1970 it would take a number for a year
const LIMIT_COLOR = "#d13b3b";
const DASHES = ["solid", "dash", "longdash", "dashdot"];
const STROKES = { solid: "", dash: "6 3", longdash: "9 3", dashdot: "8 3 2 3", dot: "2 3" };

// Lines of each panel, in the order of panels.py: [name, column, secondary, colour]. The last two are what several containers show.
const LINES = [
  [["used", CPU, false, 0], ["throttled", THROTTLED, true, 1]],
  [["used", MEMORY, false, 0], ["cache", CACHE, true, 1]],
  [["received", RX, false, 0], ["sent", TX, true, 1]],
  [["read", READ, false, 0], ["written", WRITTEN, true, 1]],
  [["processes", PIDS, false, 0]],
  ["cpu", "memory", "disk"].flatMap((name, n) => [[name, PRESSURE + 2 * n, false, n], [`${name} full`, PRESSURE + 2 * n + 1, true, n]]),
];
const SHARED = [[CPU], [MEMORY], [RX, TX], [READ, WRITTEN], [PIDS], []];

// -- numbers as people read them

function scaled(unit, top) {
  if (unit === "percent") return [1, " %"];
  if (unit === "count") return [1, ""];
  const each = unit === "rate" ? "/s" : "";
  for (const [size, name] of [[2 ** 40, " TiB"], [2 ** 30, " GiB"], [2 ** 20, " MiB"], [2 ** 10, " KiB"]]) {
    if (top >= size) return [size, name + each];
  }
  return [1, " B" + each];
}

function words(unit, value) {
  if (!Number.isFinite(value)) return "–";
  const [size, name] = scaled(unit, Math.abs(value));
  if (unit === "count") return value.toFixed(Number.isInteger(value) ? 0 : 1);
  return (value / size).toFixed(size === 1 && unit !== "percent" ? 0 : 1) + name;
}

function clock(seconds) {
  const whole = Math.floor(seconds), pad = (number) => String(number).padStart(2, "0");
  const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : h ? `${h}:${pad(m)}:${pad(whole % 60)}` : `${m}:${pad(whole % 60)}`;
}

function moment(seconds) {
  return EPOCH + Math.round(seconds * 1000);
}

// plotly reads a small HTML in texts, and %{…} in templates: names come from containers.
function escaped(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/%\{/g, "%&#123;");
}

// The page's own ground behind the label of a point: the first that is not transparent.
function ground(el) {
  for (let at = el; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (color && color !== "transparent" && !/, 0\)$/.test(color)) return color;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "#222" : "#fff";
}

// -- points

function highest(a, b) {
  return Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b);
}

// One container's rows: times, and a list for each column.
function emptyCourse() {
  return { times: [], columns: Array.from({ length: COLUMNS }, () => []) };
}

// Behind what is there: a page that asked for all while rows were on their way gets none of them twice.
function append(course, times, columns) {
  const last = course.times.length ? course.times[course.times.length - 1] : -Infinity;
  let first = 0;
  while (first < times.length && times[first] <= last) first += 1;
  for (let row = first; row < times.length; row += 1) {
    course.times.push(times[row]);
    for (let n = 0; n < COLUMNS; n += 1) course.columns[n].push(columns[n][row]);
  }
  if (course.times.length > MOST) thin(course);
}

// Of everything but the newest each two rows become one: of each column the higher value, so that no peak is lost.
function thin(course) {
  const old = course.times.length - KEPT;
  const pairs = (values, join) => {
    const kept = [];
    for (let n = 0; n < old; n += 2) kept.push(n + 1 < old ? join(values[n], values[n + 1]) : values[n]);
    return kept.concat(values.slice(old));
  };
  course.times = pairs(course.times, (a, b) => b);
  course.columns = course.columns.map((values) => pairs(values, highest));
}

// For each container: count (u32), times (f64), columns (f32), little-endian; null for what makes no sense.
function unpacked(data) {
  const found = [];
  if (!data || !data.byteLength) return found;
  let at = 0;
  try {
    while (at < data.byteLength) {
      const count = data.getUint32(at, true);
      at += 4;
      if (count * (8 + 4 * COLUMNS) > data.byteLength - at) return null;
      const times = Array.from({ length: count }, (_, n) => data.getFloat64(at + 8 * n, true));
      at += 8 * count;
      const columns = Array.from({ length: COLUMNS }, (_, column) =>
        Array.from({ length: count }, (_, n) => data.getFloat32(at + 4 * (column * count + n), true)));
      at += 4 * COLUMNS * count;
      found.push({ times, columns });
    }
  } catch (error) {
    return null; // shorter than it says
  }
  return found;
}

// -- plotly: once for a page, whichever widget asks first

function plotlyOf(model) {
  const key = Symbol.for("io.pycontainers.plotly");
  if (!globalThis[key]) {
    globalThis[key] = loaded(model);
    globalThis[key].catch(() => delete globalThis[key]); // another kernel may have it
  }
  return globalThis[key];
}

async function loaded(model) {
  const asset = await model.widget_manager.get_model(String(model.get("plotly")).replace("IPY_MODEL_", ""));
  const code = asset.get("code");
  if (!code || !code.byteLength) throw new Error("plotly is not installed in the kernel's environment");
  if (typeof DecompressionStream === "undefined") throw new Error("this browser cannot unpack it");
  const unpacking = new Blob([code]).stream().pipeThrough(new DecompressionStream("gzip"));
  const text = await new Response(unpacking).text();
  const before = globalThis.Plotly;
  // As a module of its own: neither an AMD loader of the page nor its other plotly is touched.
  const parts = ["const module = { exports: {} }, exports = module.exports, define = undefined;\n", text, "\nexport default module.exports;"];
  const url = URL.createObjectURL(new Blob(parts, { type: "text/javascript" }));
  try {
    return (await import(url)).default;
  } finally {
    URL.revokeObjectURL(url);
    if (before) globalThis.Plotly = before;
    else delete globalThis.Plotly;
    asset.set("code", new DataView(new ArrayBuffer(0))); // it is loaded: a saved notebook need not hold it
  }
}
