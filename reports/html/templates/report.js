"use strict";
(() => {
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const settings = JSON.parse($("#settings").textContent);
const quantities = new Map(settings.quantities.map((one) => [one.key, one]));
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// The rows, read from the table for readers without JavaScript. With JavaScript its markup is one text without
// any element, which opens several times as fast; as all names in it are escaped, a "<" begins a tag of ours.
// They are read when the table, a plot or a link first needs them.
const ENTITIES = { lt: "<", gt: ">", amp: "&", "#34": '"', "#39": "'" };
const plain = (text) => (text.includes("&") ? text.replace(/&(lt|gt|amp|#34|#39);/g, (_, name) => ENTITIES[name]) : text);
const heads = [];
const rows = [];
const place = new Map(); // of a record's id
const anchors = new Map(); // rows by deep link
function read() {
  if (rows.length) return;
  const [, head, ...lines] = $("#rows").textContent.split("<tr");
  for (const [, key, title] of head.matchAll(/<th data-key="(\w+)"[^>]*>([^<]*)/g)) heads.push({ key, title });
  lines.forEach((text, at) => rows.push(rowOf(text, at)));
}
function rowOf(text, at) {
  const [tag, ...cells] = text.split("<td>");
  const of = Object.fromEntries([...tag.matchAll(/([\w-]+)="([^"]*)"/g)].map(([, name, value]) => [name, plain(value)]));
  const [n, view, old] = of["data-n"].split(" ");
  const row = { at, n: +n, view, other: of["data-o"] || "", old: old === "old" };
  for (const [, id] of cells[0].matchAll(/<a id="([^"]*)"/g)) anchors.set(plain(id), row);
  heads.forEach(({ key }, i) => { row[key] = plain(i ? cells[i] : cells[0].slice(cells[0].lastIndexOf(">") + 1)); });
  row.date = row.date.split("\n")[0];
  if (of.id) place.set(of.id, row);
  return row;
}
const numeric = (text) => (text === "" ? null : Number.parseFloat(text));
const colour = (model) => { const [of] = settings.styles[model]; return `light-dark(${of}, color-mix(in oklab, ${of} 76%, white))`; };

// records, unpacked when one is opened
const chunks = $$("script.chunk");
const unpacked = new Map();
async function detail(n) {
  const at = Math.floor(n / settings.chunk);
  if (!unpacked.has(at)) {
    const bytes = Uint8Array.from(atob(chunks[at].textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    unpacked.set(at, JSON.parse(await new Response(stream).text()));
  }
  return unpacked.get(at)[n % settings.chunk];
}
function samples(record) {
  const found = [];
  for (const [key, value] of Object.entries(record)) {
    if (Array.isArray(value) && value.length > 1 && key.endsWith("_s") && value.every(Number.isFinite))
      found.push({ title: key.replace(/_s$/, "").replaceAll("_", " ") + ", ms", label: "sample", values: value.map((v, i) => [i + 1, 1e3 * v]) });
    if (key === "evaluations") found.push({ title: "validation loss", label: "step", values: value.map((one) => [one.step, one.loss]) });
  }
  return found;
}
function strip({ title, label, values }) {
  const middle = d3.median(values, (v) => v[1]);
  return Plot.plot({
    width: Math.max(280, Math.min(800, $("#record").clientWidth - 46)), height: 130, marginLeft: 52,
    x: { label, ticks: d3.ticks(...d3.extent(values, (v) => v[0]), 8).filter(Number.isInteger), tickFormat: String }, y: { label: null, grid: true, nice: true },
    marks: [
      Plot.ruleY([middle], { stroke: "var(--accent)", strokeOpacity: 0.5 }),
      Plot.lineY(values, { x: "0", y: "1", stroke: "var(--dim)", strokeOpacity: 0.4 }),
      Plot.dot(values, { x: "0", y: "1", r: 2.4, fill: "var(--accent)" }),
    ],
    title: undefined, ariaLabel: title,
  });
}
const listed = (pairs) => element("dl", {}, ...pairs.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, String(value))]));
async function open(row) {
  if (row.n < 0) return;
  const found = await detail(row.n);
  const body = $("#record-body"), dialog = $("#record");
  if (!dialog.open) dialog.showModal();
  const numbers = heads.filter((head) => row[head.key] !== "").map((head) => [head.title, row[head.key]]);
  body.replaceChildren(element("h3", { id: "record-name" }, found.name), listed(numbers));
  for (const one of samples(found.record))
    body.append(element("h4", {}, `${one.title}: ${one.values.length} shown, to 4 digits, with their median`), strip(one));
  if (found.command) {
    const copy = element("button", { type: "button" }, "Copy");
    copy.onclick = () => copyText(found.command, copy);
    body.append(element("h4", {}, "Command to repeat it"), element("div", { class: "command" }, element("pre", {}, found.command), copy));
  }
  if (found.notes.length) body.append(element("h4", {}, "Notes"), element("ul", { class: "notes" }, ...found.notes.map((note) => element("li", {}, note))));
  const environment = Object.entries(found.environment).filter(([, value]) => value !== "");
  if (environment.length) body.append(element("h4", {}, "Environment"), listed(environment));
  body.append(element("h4", {}, `Record; lists of more than ${settings.most} entries are shortened`), element("pre", {}, JSON.stringify(found.record, null, 1)));
  dialog.scrollTop = 0;
}
$("#record").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.target.close(); });
$("#record").addEventListener("close", () => { if (place.has(decodeURIComponent(location.hash.slice(1)))) history.replaceState(null, "", location.pathname); });

// the table
let view = "speed";
const allowed = (row) => (view === "all" || row.view === view) && (!row.old || $("#older").checked);
const inView = (key) => (key === "interval" ? view === "all" || view === "speed" : !quantities.has(key) || view === "all" || quantities.get(key).views.includes(view));
const texts = new Set(["model", "family", "what", "status", "device", "res", "batch", "precision", "settings", "result"]);
const lists = new Set(["family", "what", "status", "device", "res", "batch", "precision"]);
const widths = { model: 128, family: 92, what: 130, status: 108, device: 226, res: 70, batch: 96, precision: 122, settings: 140, rate: 116, result: 240, interval: 134, date: 112 };
const menu = [
  { label: "Pin or unpin", action: (_, column) => column.updateDefinition({ frozen: !column.getDefinition().frozen }) },
  { label: "Hide", action: (_, column) => column.hide() },
  { label: "Show all columns", action: (_, column) => column.getTable().getColumns().forEach((one) => one.show()) },
];
const escaped = (text) => { const span = document.createElement("span"); span.textContent = text; return span; };
let made; // the table, made when it comes near or is wanted
function grid() {
  if (made) return made;
  read();
  made = new Tabulator("#grid", options());
  made.built = new Promise((done) => made.on("tableBuilt", done));
  made.built.then(() => { $("#shown").textContent = `${made.getDataCount("active").toLocaleString("en")} rows`; });
  made.on("dataFiltered", (_, shown) => { $("#shown").textContent = `${shown.length.toLocaleString("en")} rows`; });
  made.on("rowClick", (event, row) => { event.preventDefault(); open(row.getData()); });
  return made;
}
const options = () => ({
  data: rows, index: "at", height: $("#grid").clientHeight, layout: "fitDataStretch", placeholder: "No row has all of this",
  columnDefaults: { headerSortTristate: true, headerMenu: menu, formatter: (cell) => escaped(cell.getValue()), headerTooltip: true },
  columns: heads.map(({ key, title }) => {
    const column = { field: key, title, visible: inView(key), frozen: key === "model" && window.innerWidth > 500, minWidth: 64, width: widths[key] };
    if (key === "model") column.formatter = (cell) => element("a", { class: "model", href: "#", tabindex: "0" }, cell.getValue() || "–");
    if (key === "status") column.formatter = (cell) => element("span", { class: `chip ${cell.getValue()}` }, cell.getValue());
    if (lists.has(key)) {
      const values = [...new Set(rows.map((row) => row[key]))].filter(Boolean).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      Object.assign(column, { headerFilter: "list", headerFilterParams: { values, clearable: true, autocomplete: true, listOnEmpty: true, freetext: true }, headerFilterFunc: (wanted, value) => !wanted || value === wanted || (!values.includes(wanted) && value.toLowerCase().includes(String(wanted).toLowerCase())) });
    } else if (texts.has(key)) {
      Object.assign(column, { headerFilter: "input", headerFilterFunc: matches });
    } else if (key !== "interval" && key !== "date") {
      Object.assign(column, { hozAlign: "right", headerHozAlign: "right", headerSortStartingDir: quantities.get(key).better === "lower" ? "asc" : "desc" });
    }
    if (quantities.has(key) || key === "res" || key === "batch") Object.assign(column, { sorter: "number", sorterParams: { alignEmptyValues: "bottom" } });
    return column;
  }),
  initialFilter: allowed,
  rowFormatter: (row) => { if (row.getData().old) row.getElement().classList.add("old"); },
});
// words of a filter: every one must occur; * stands for any text
function matches(wanted, value) {
  if (wanted.includes("*")) return new RegExp(`^${wanted.replace(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*")}$`, "i").test(value);
  return wanted.toLowerCase().split(/\s+/).every((word) => value.toLowerCase().includes(word));
}
async function refresh() {
  await grid().built;
  grid().setFilter(allowed);
  grid().blockRedraw();
  for (const column of grid().getColumns()) {
    inView(column.getField()) ? column.show() : column.hide();
  }
  grid().restoreRedraw();
}
function choose(name) {
  view = name;
  for (const one of $$("[data-view]")) one.setAttribute("aria-pressed", String(one.dataset.view === name));
  return refresh();
}
for (const button of $$("[data-view]")) button.onclick = () => choose(button.dataset.view);
$("#older").onchange = refresh;
$("#clear").onclick = () => { grid().clearHeaderFilter(); grid().clearSort(); };

async function copyText(text, button) {
  const words = button.textContent;
  try { await navigator.clipboard.writeText(text); } catch {
    const area = element("textarea");
    area.value = text;
    button.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = words; }, 1200);
}
const asCsv = (cells) => cells.map((text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)).join(",");
const asLatex = (cells) => `${cells.map((text) => text.replace(/\\/g, "\\textbackslash ").replace(/[&%#_${}]/g, "\\$&").replace(/[~^]/g, "\\$&{}")).join(" & ")} \\\\`;
function copied(form) {
  const columns = grid().getColumns().filter((one) => one.isVisible());
  const data = grid().getData("active");
  const used = columns.filter((one) => data.some((row) => row[one.getField()] !== ""));
  const lines = [used.map((one) => one.getDefinition().title), ...data.map((row) => used.map((one) => row[one.getField()]))];
  if (form === "csv") return lines.map(asCsv).join("\n") + "\n";
  const [head, ...body] = lines.map(asLatex);
  const letters = used.map((one) => (quantities.has(one.getField()) ? "r" : "l")).join("");
  return [`\\begin{tabular}{${letters}}`, "\\hline", head, "\\hline", ...body, "\\hline", "\\end{tabular}", ""].join("\n");
}
for (const button of $$("[data-copy]")) button.onclick = () => copyText(copied(button.dataset.copy), button);

// series: the numbers of one quantity under one setting, by model; the newest counts
const series = new Map();
let ordered = []; // those of most models first
let plotted = []; // those of several models
function collect() {
  if (ordered.length) return;
  read();
  for (const row of rows) add(row);
  ordered = [...series.values()].sort((a, b) => b.points.size - a.points.size);
  plotted = ordered.filter((one) => one.points.size > 1);
  offer();
}
function add(row) {
  if (!row.model) return;
  for (const [key, { title, better }] of quantities) {
    const value = numeric(row[key]);
    if (value === null || key === "ratio" || (row.what === "quality")) continue;
    const words = row.status === "published" ? [row.what, row.settings] : [row.status === "counted" ? "" : row.device, row.batch && row.status !== "counted" ? `batch ${row.batch}` : "", row.precision, row.settings, row.status === "counted" ? "" : row.what];
    const setting = [row.res && `${row.res} px`, ...words].filter(Boolean).join(", ");
    const name = `${title}, ${row.status}: ${setting}`;
    if (!series.has(name)) series.set(name, { name, key, title, better, status: row.status, setting, res: row.res, points: new Map() });
    let [low, high] = [null, null];
    if (row.interval && row.what !== "interleaved") {
      [low, high] = row.interval.split(" to ").map(Number);
      const rate = numeric(row.rate);
      if (key === "ms") [low, high] = [value * rate / high, value * rate / low];
      else if (key !== "rate") [low, high] = [null, null];
    }
    const old = series.get(name).points.get(row.model);
    if (!old || old.row.date <= row.date) series.get(name).points.set(row.model, { value, low, high, row });
  }
}

// Pareto
function fill(select, chosen, options) {
  const groups = d3.group(options, (one) => `${one.title}, ${one.status}`);
  select.replaceChildren(...[...groups].map(([label, of]) => {
    const group = element("optgroup", { label });
    group.append(...of.map((one) => element("option", { value: one.name }, `${one.name} (${one.points.size})`)));
    return group;
  }));
  if (chosen) select.value = chosen.name;
}
const shared = (a, b) => [...a.points.keys()].filter((model) => b.points.has(model)).length;
function offer() { // the axes and the models to choose
  const fids = plotted.filter((one) => one.key === "fid");
  const firstY = fids.find((one) => one.setting.includes("400K") && one.setting.includes("256")) || fids[0] || plotted[0];
  const firstX = firstY && plotted.filter((one) => one.key === "gmacs" && one.res === firstY.res).sort((a, b) => (b.status === "counted") - (a.status === "counted") || shared(b, firstY) - shared(a, firstY))[0] || plotted[0];
  fill($("#x"), firstX, plotted);
  fill($("#y"), firstY, plotted);
  const models = [...new Set(rows.filter((row) => row.model && [...quantities.keys()].some((key) => row[key])).map((row) => row.model))];
  for (const [id, wanted] of [["#a", "FCDM-XL"], ["#b", "DiT-XL/2"]]) {
    $(id).replaceChildren(...models.map((model) => element("option", {}, model)));
    if (models.includes(wanted)) $(id).value = wanted;
  }
}
const round = (value) => (value >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(4))));
const spoken = (point) => (point.low === null ? round(point.value) : `${round(point.value)} [${round(point.low)}, ${round(point.high)}]`);
function frontier(points, x, y) {
  const sign = (one) => (one.better === "lower" ? 1 : -1);
  let best = Infinity;
  return d3.sort(points, (p) => sign(x) * p.x.value, (p) => sign(y) * p.y.value).filter((p) => { const cost = sign(y) * p.y.value; const kept = cost < best; best = Math.min(best, cost); return kept; });
}
// points that would cover each other stand side by side: the others of a point, and its shift in px
function spread(svg, points) {
  const at = points.map((p) => [svg.scale("x").apply(p.x.value), svg.scale("y").apply(p.y.value)]);
  points.forEach((p, i) => {
    const same = points.filter((_, j) => Math.hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]) < 3);
    p.same = same.filter((one) => one !== p);
    p.shift = Math.min(9, 18 / (same.length - 1 || 1)) * (same.indexOf(p) - (same.length - 1) / 2);
  });
}
// labels: each takes the first free place around its point, or none
function name(svg, points, front) {
  const at = (p) => [svg.scale("x").apply(p.x.value) + p.shift, svg.scale("y").apply(p.y.value)];
  const taken = points.map((p) => { const [x, y] = at(p); return [x - 6, y - 6, x + 6, y + 6]; });
  const layer = d3.select(svg).append("g").attr("text-anchor", "start").attr("font-size", 11.5).attr("paint-order", "stroke").attr("stroke", "var(--card)").attr("stroke-width", 3.5).attr("fill", "var(--ink)").attr("pointer-events", "none");
  points.forEach((p, i) => {
    const [x, y] = at(p), width = (front.has(p) ? 8.2 : 7) * p.model.length;
    for (const [dx, dy] of [[-width / 2, -10], [10, 4], [-width - 10, 4], [-width / 2, 19], [8, -9], [-width - 8, -9], [8, 16], [-width - 8, 16]]) {
      const box = [x + dx, y + dy - 10, x + dx + width, y + dy + 2];
      if (box[2] > svg.width.baseVal.value || box[0] < 58) continue;
      if (taken.some((one, j) => j !== i && box[0] < one[2] && one[0] < box[2] && box[1] < one[3] && one[1] < box[3])) continue;
      taken.push(box);
      layer.append("text").attr("x", x + dx).attr("y", y + dy).attr("font-weight", front.has(p) ? 650 : 400).text(p.model);
      return;
    }
  });
}
function draw() {
  const [x, y] = [series.get($("#x").value), series.get($("#y").value)];
  const chart = $("#chart");
  if (!x || !y) return chart.replaceChildren("No two numbers of a model to draw.");
  const points = [...x.points].filter(([model]) => y.points.has(model)).map(([model, at]) => ({ model, x: at, y: y.points.get(model) }));
  if (!points.length) return chart.replaceChildren("No model has both numbers.");
  const best = frontier(points, x, y);
  const type = $("#log").checked && points.every((p) => p.x.value > 0 && p.y.value > 0) ? "log" : "linear";
  const width = Math.max(320, chart.clientWidth - 26), narrow = width < 560;
  const ends = (of) => points.flatMap((p) => [p[of].value, p[of].low ?? p[of].value, p[of].high ?? p[of].value]);
  const room = (of) => { const [low, high] = d3.extent(ends(of)); const by = type === "log" ? (high / low || 2) ** 0.08 : (high - low || 1) * 0.08; return type === "log" ? [low / by, high * by] : [low - by, high + by]; };
  const label = (one) => `${one.title}, ${one.status} (${one.better} is better)`;
  const ticks = (of) => { const [low, high] = room(of); if (type === "linear") return narrow && of === "x" ? 5 : 8; const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1); const few = high / low > 60; const rounded = powers.flatMap((p) => (few ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]).map((m) => m * 10 ** p)).filter((v) => low <= v && v <= high); return rounded.length > 3 ? rounded : d3.ticks(low, high, narrow ? 4 : 6); };
  const front = new Set(best);
  const svg = Plot.plot({
    width, height: narrow ? 380 : 500, marginLeft: 58, marginBottom: 46, marginRight: narrow ? 24 : 60, marginTop: 26,
    x: { type, label: null, domain: room("x") },
    y: { type, label: null, domain: room("y") },
    marks: [
      // with "text": of a logarithmic axis, tickFormat blanks the labels of some multiples
      Plot.gridX(ticks("x")), Plot.axisX(ticks("x"), { text: round, label: label(x), labelAnchor: "center", labelArrow: "none" }),
      Plot.gridY(ticks("y")), Plot.axisY(ticks("y"), { text: round, label: label(y), labelArrow: "none" }),
      Plot.line(best, { x: (p) => p.x.value, y: (p) => p.y.value, stroke: "var(--ink)", strokeOpacity: 0.45, strokeWidth: 1.5, strokeDasharray: "5,4" }),
      Plot.link(points.filter((p) => p.x.low !== null), { x1: (p) => p.x.low, x2: (p) => p.x.high, y: (p) => p.y.value, y1: (p) => p.y.value, y2: (p) => p.y.value, stroke: (p) => colour(p.model), strokeWidth: 1.6 }),
      Plot.link(points.filter((p) => p.y.low !== null), { x1: (p) => p.x.value, x2: (p) => p.x.value, y1: (p) => p.y.low, y2: (p) => p.y.high, stroke: (p) => colour(p.model), strokeWidth: 1.6 }),
      Plot.dot(points, { x: (p) => p.x.value, y: (p) => p.y.value, symbol: (p) => settings.styles[p.model][1], r: (p) => (front.has(p) ? 6.5 : 5), fill: (p) => colour(p.model), fillOpacity: (p) => (front.has(p) ? 1 : 0.8), stroke: "var(--card)", strokeWidth: 1.2, sort: null, className: "point" }),
    ],
    r: { type: "identity" }, color: { type: "identity" }, opacity: { type: "identity" },
  });
  spread(svg, points);
  name(svg, [...best, ...points.filter((p) => !front.has(p))], front);
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", `${y.name} against ${x.name}`);
  chart.replaceChildren(svg, element("div", { id: "tip", hidden: "" }));
  const tip = $("#tip");
  for (const mark of $$(".point > *", svg)) {
    const p = points[mark.__data__];
    if (p.shift) mark.style.translate = `${p.shift}px`;
    const also = p.same.length ? `at the same place: ${p.same.map((one) => one.model).join(", ")}` : "";
    const words = [`${x.title}: ${spoken(p.x)}, ${x.status}`, `${y.title}: ${spoken(p.y)}, ${y.status}`];
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("role", "button");
    mark.setAttribute("aria-label", `${p.model}; ${words.join("; ")}${[front.has(p) && "on the frontier", also].filter(Boolean).map((text) => `; ${text}`).join("")}`);
    const show = () => {
      tip.replaceChildren(element("strong", {}, p.model), ...words.flatMap((text) => [text, element("br")]), [front.has(p) && "on the frontier", also].filter(Boolean).join("; "));
      tip.hidden = false;
      const [box, at] = [chart.getBoundingClientRect(), mark.getBoundingClientRect()];
      const left = at.left - box.left + 14;
      tip.style.left = `${Math.max(4, left + tip.offsetWidth > box.width ? left - tip.offsetWidth - 24 : left)}px`;
      tip.style.top = `${Math.max(4, at.top - box.top - tip.offsetHeight - 6)}px`;
    };
    const hide = () => { tip.hidden = true; };
    mark.addEventListener("mouseenter", show);
    mark.addEventListener("mouseleave", hide);
    mark.addEventListener("focus", () => { show(); $("#point").textContent = mark.getAttribute("aria-label"); });
    mark.addEventListener("blur", hide);
    const go = () => open(p.x.row.n >= 0 && p.x.row.status !== "published" ? p.x.row : p.y.row);
    mark.addEventListener("click", go);
    mark.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); go(); } });
  }
}
for (const id of ["#x", "#y", "#log"]) $(id).onchange = draw;
const seen = new Set(); // sections are drawn when they come near
const near = new IntersectionObserver((entries, observer) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    seen.add(target.id);
    if (target.id === "grid") { grid(); continue; }
    collect();
    if (target.id === "chart") { drawn = target.clientWidth; draw(); } else pair();
  }
}, { rootMargin: "600px" });
for (const id of ["#grid", "#chart", "#pair"]) near.observe($(id));
let drawn = 0; // width of the last drawing: a new height, as of the line below, must not move the focus
new ResizeObserver(() => {
  if (seen.has("chart") && $("#chart").clientWidth !== drawn) { drawn = $("#chart").clientWidth; requestAnimationFrame(draw); }
}).observe($("#chart"));

// side by side
for (const id of ["#a", "#b"]) $(id).onchange = pair;
function pair() {
  const [a, b] = [$("#a").value, $("#b").value];
  const body = [];
  for (const row of rows) {
    if (row.what !== "interleaved" || row.old && !$("#older").checked) continue;
    const straight = row.model === a && row.other === b;
    if (!straight && !(row.model === b && row.other === a)) continue;
    const flip = (text) => (straight ? text : text && round(1 / numeric(text)));
    const interval = row.interval ? row.interval.split(" to ").map(flip) : [];
    if (!straight) interval.reverse();
    const verdict = straight ? row.result : ({ faster: "slower", slower: "faster" })[row.result] || row.result;
    const settings = row.settings.replace(`over ${row.other}`, "").replace(/^, /, "");
    const where = [row.device, `${row.res} px`, `batch ${row.batch}`, row.precision, settings, row.date].filter(Boolean).join(", ");
    body.push({ both: true, rows: [, , , , , row], cells: ["speed ratio, interleaved", where, row.status, "", "", `${flip(row.ratio)}${interval.length ? ` [${interval.join(", ")}]` : ""}`, verdict] });
  }
  for (const one of d3.sort(ordered, (s) => [...quantities.keys()].indexOf(s.key))) {
    const [left, right] = [one.points.get(a), one.points.get(b)];
    if (!left && !right) continue;
    const ratio = left && right ? round(left.value / right.value) : "";
    body.push({ both: Boolean(ratio), rows: [, , , left?.row, right?.row], cells: [one.title, one.setting, one.status, left ? spoken(left) : "", right ? spoken(right) : "", ratio, ""] });
  }
  body.sort((s, t) => t.both - s.both);
  const table = element("table", { class: "plain" }, element("thead", {}, element("tr", {}, ...["quantity", "setting", "status", a, b, `${a} ÷ ${b}`, "verdict"].map((text) => element("th", {}, text)))), element("tbody"));
  for (const { rows: sources, cells } of body) {
    const shown = cells.map((text, i) => {
      if (i === 2) return element("span", { class: `chip ${text}` }, text);
      if (!sources[i] || sources[i].n < 0) return text;
      const link = element("button", { type: "button", class: "open", title: "Open its record" }, text);
      link.onclick = () => open(sources[i]);
      return link;
    });
    table.tBodies[0].append(element("tr", {}, ...shown.map((one) => element("td", {}, one))));
  }
  $("#pair").replaceChildren(body.length ? table : "Neither has a number.");
}
// claims
for (const button of $$("[data-tone]")) button.onclick = () => {
  for (const one of $$("[data-tone]")) one.setAttribute("aria-pressed", String(one === button));
  for (const group of $$(".tone")) group.hidden = button.dataset.tone !== "" && group.dataset.of !== button.dataset.tone;
};

// deep links: #claim-17, #FCDM-XL/256/bf16, a record
async function follow() {
  let wanted = location.hash.slice(1);
  try { wanted = decodeURIComponent(wanted); } catch { return; }
  if (!wanted) return;
  const claim = /^claim-\d+$/.test(wanted) && document.getElementById(wanted);
  if (claim) { claim.open = true; claim.parentElement.hidden = false; claim.scrollIntoView({ block: "center" }); claim.querySelector("summary").focus({ preventScroll: true }); return; }
  read();
  if (place.has(wanted)) { open(place.get(wanted)); return; }
  if (!anchors.has(wanted)) return;
  const row = anchors.get(wanted);
  if (row.old) $("#older").checked = true;
  const precision = row.precision && wanted.endsWith(`/${row.precision}`);
  const views = new Set(rows.filter((one) => one.model === row.model && one.res === row.res && (!precision || one.precision === row.precision)).map((one) => one.view));
  await choose(views.size === 1 && row.view ? row.view : "all");
  grid().clearHeaderFilter();
  grid().setHeaderFilterValue("model", row.model);
  grid().setHeaderFilterValue("res", row.res);
  if (precision) grid().setHeaderFilterValue("precision", row.precision);
  $("#results").scrollIntoView();
}
window.addEventListener("hashchange", follow);
if (document.readyState === "complete") follow();
else window.addEventListener("load", follow);

$("#theme").onclick = () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* a page from disk may keep nothing */ }
};
document.documentElement.dataset.ready = "yes";
})();
