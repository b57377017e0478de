"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const range = (first, last) => (first === last ? `${first}` : `${first}\u2013${last}`);
const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

function size(bytes) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (bytes < 1024) return unit === "B" ? `${bytes} B` : `${bytes.toFixed(1)} ${unit}`;
    bytes /= 1024;
  }
  return `${bytes.toFixed(1)} GiB`;
}

function cut(text, most) {
  return text.length <= most ? text : `${text.slice(0, most / 2)}\u2026${text.slice(-most / 2 + 1)}`;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const withCode = (text) => text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));

/* Scheme */

function isDark() {
  const chosen = document.documentElement.dataset.scheme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function startScheme() {
  const button = byId("scheme");
  const name = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    document.documentElement.dataset.scheme = isDark() ? "light" : "dark";
    name();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  name();
}

/* Mesh: a block is a place on the lanes axis, a cell in it a place on the other axes. */

const MOST_CELLS = 512;
const RAMP = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"]
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

function rampColour(part) {
  const at = part * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((c, i) => Math.round(c + (RAMP[low + 1][i] - c) * (at - low)));
}

const laneColour = (place, places) => rampColour(places < 2 ? 0.35 : 0.06 + 0.88 * place / (places - 1));

function isBright([r, g, b]) {
  const light = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2] > 0.18;
}

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

function meshLayout() {
  const axes = data.axes.length ? data.axes : [];
  const strides = axes.map((_, i) => product(axes.slice(i + 1).map((a) => a.size)));
  const lanesAt = axes.findIndex((a) => a.name === data.lanesAxis);
  const others = axes.map((_, i) => i).filter((i) => i !== lanesAt);
  const places = lanesAt < 0 ? 1 : axes[lanesAt].size;
  const rest = product(others.map((i) => axes[i].size));
  let perBlock = 1, perCell = 1;
  while (Math.ceil(places / perBlock) * Math.ceil(rest / perCell) > MOST_CELLS) {
    if (rest / perCell > 8) perCell *= 2; else perBlock *= 2;
  }
  return { axes, strides, lanesAt, others, places, rest, perBlock, perCell,
    blocks: Math.ceil(places / perBlock), cells: Math.ceil(rest / perCell), devices: places * rest };
}

function coordinates(mesh, place, other) {
  const at = new Array(mesh.axes.length).fill(0);
  if (mesh.lanesAt >= 0) at[mesh.lanesAt] = place;
  for (const i of [...mesh.others].reverse()) {
    at[i] = other % mesh.axes[i].size;
    other = Math.floor(other / mesh.axes[i].size);
  }
  return at;
}

const deviceAt = (mesh, at) => at.reduce((sum, c, i) => sum + c * mesh.strides[i], 0);

function placeOf(mesh, device) {
  const at = mesh.axes.map((a, i) => Math.floor(device / mesh.strides[i]) % a.size);
  const other = mesh.others.reduce((sum, i) => sum * mesh.axes[i].size + at[i], 0);
  return { place: mesh.lanesAt < 0 ? 0 : at[mesh.lanesAt], other };
}

function copiesIn(mesh, box) {
  let copies = 0;
  for (let other = box.other; other <= box.lastOther; other++) {
    const at = coordinates(mesh, box.place, other);
    if (mesh.others.some((i) => !mesh.axes[i].states && at[i] > 0)) copies += 1;
  }
  return copies * (box.lastPlace - box.place + 1);
}

const devicesIn = (box) => (box.lastPlace - box.place + 1) * (box.lastOther - box.other + 1);
const isCopy = (mesh, box) => copiesIn(mesh, box) === devicesIn(box);

function lanesText(first, last) {
  const from = first * data.lanesPerDevice, to = (last + 1) * data.lanesPerDevice - 1;
  const name = from === to ? `lane ${from}` : `lanes ${range(from, to)}`;
  if (from >= data.lanes) return `${name}, padding`;
  return to >= data.lanes ? `${name}, of which ${range(data.lanes, to)} ${data.lanes === to ? "is" : "are"} padding` : name;
}

function boxOf(mesh, block, cell) {
  const place = block * mesh.perBlock, other = cell * mesh.perCell;
  return { place, other, lastPlace: Math.min(place + mesh.perBlock, mesh.places) - 1,
    lastOther: Math.min(other + mesh.perCell, mesh.rest) - 1 };
}

function boxText(mesh, box) {
  const { place, lastPlace, other, lastOther } = box;
  const low = coordinates(mesh, place, other), high = coordinates(mesh, lastPlace, lastOther);
  const many = devicesIn(box);
  const first = deviceAt(mesh, low), last = deviceAt(mesh, high);
  const who = many === 1 ? `Device ${first}`
    : last - first + 1 === many ? `Devices ${range(first, last)} (${many})` : `${many} devices, ${first} to ${last}`;
  const where = mesh.axes.map((a, i) => `${a.name}=${mixed(mesh, i, box) ? range(0, a.size - 1) : range(low[i], high[i])}`).join(", ");
  const copied = copiesIn(mesh, box);
  const copies = !copied ? "" : copied < many ? `; ${copied} of them are copies` : many === 1 ? "; a copy" : "; all copies";
  const each = many === 1 ? "holds" : "each holds";
  const peak = data.steps.length ? `, up to ${size(data.peak)} during the initialization` : "";
  return `${who}${where ? ` at ${where}` : ""}: ${data.padded > data.lanes ? "computes " : ""}${lanesText(place, lastPlace)}; ${each} ${size(data.held)}${peak}${copies}.`;
}

function mixed(mesh, axis, box) {
  if (axis === mesh.lanesAt) return false;
  const run = product(mesh.others.filter((i) => i >= axis).map((i) => mesh.axes[i].size));
  return Math.floor(box.lastOther / run) !== Math.floor(box.other / run);
}

function cellLook(mesh) {
  const cells = mesh.blocks * mesh.cells;
  if (cells <= 32) return { name: "large", width: 64, height: 48, most: 4 };
  if (cells <= 128) return { name: "medium", width: 28, height: 24, most: 8 };
  return { name: "fine", width: 15, height: 15, most: 16 };
}

function innerColumns(mesh, look) {
  const inner = mesh.others.length && mesh.perCell === 1 ? mesh.axes[mesh.others.at(-1)].size : 0;
  if (inner > 1 && inner <= look.most) return inner;
  let columns = Math.ceil(Math.sqrt(mesh.cells));
  while (mesh.cells % columns && columns < look.most) columns += 1;
  return Math.max(1, Math.min(columns, look.most, mesh.cells));
}

function makeCell(mesh, look, block, index) {
  const box = boxOf(mesh, block, index);
  const colour = laneColour((box.place + box.lastPlace) / 2, mesh.places);
  const cell = element("button", { type: "button", tabindex: "-1", "aria-label": boxText(mesh, box) });
  cell.className = `cell ${isBright(colour) ? "bright" : "dark"}${isCopy(mesh, box) ? " copy" : ""}`;
  cell.dataset.devices = devicesIn(box);
  cell.style.backgroundColor = `rgb(${colour})`;
  cell.title = cell.getAttribute("aria-label");
  if (look.name === "large") {
    const at = coordinates(mesh, box.place, box.other);
    cell.append(element("b", {}, String(deviceAt(mesh, at))));
    const axis = mesh.others.filter((i) => mesh.axes[i].size > 1);
    if (axis.length) cell.append(cut(`${axis.length > 1 ? "" : `${mesh.axes[axis[0]].name} `}${axis.map((i) => at[i]).join(",")}`, 10));
  }
  return cell;
}

function makeBlock(mesh, look, columns, block) {
  const track = mesh.blocks === 1 ? "auto-fill" : columns;
  const cells = element("div", { class: "cells", style: `grid-template-columns: repeat(${track}, ${look.width}px)` });
  for (let i = 0; i < mesh.cells; i++) cells.append(makeCell(mesh, look, block, i));
  const made = element("div", { class: "block" }, cells);
  if (mesh.blocks === 1) made.style.width = "100%";
  const text = blockLabel(mesh, block, columns * (look.width + 2));
  if (mesh.blocks > 1 && text && (look.name !== "fine" || mesh.cells > 1)) made.append(element("div", { class: "label" }, text));
  return made;
}

function blockLabel(mesh, block, wide) {
  const lanes = mesh.perBlock * data.lanesPerDevice, longest = range(data.padded - lanes, data.padded - 1);
  const word = lanes === 1 ? "lane " : "lanes ";
  if (longest.length * 6.6 > wide) return "";
  const text = range(block * lanes, Math.min((block + 1) * lanes, data.padded) - 1);
  return (word.length + longest.length) * 6.6 > wide ? text : word + text;
}

function idleBlock(look) {
  const shown = Math.min(data.idle, 64), columns = Math.min(shown, look.most);
  const cells = element("div", { class: "cells", style: `grid-template-columns: repeat(${columns}, ${look.width}px)` });
  for (let i = 0; i < shown; i++) cells.append(element("div", { class: "idle" }));
  return element("div", { class: "block" }, cells, element("div", { class: "label" }, `${count(data.idle)} idle`));
}

function startMesh() {
  const mesh = meshLayout(), look = cellLook(mesh), columns = innerColumns(mesh, look), home = byId("mesh");
  home.classList.add(look.name);
  if (mesh.cells === 1) home.classList.add("lone");
  home.style.setProperty("--cell-h", `${look.height}px`);
  for (let block = 0; block < mesh.blocks; block++) home.append(makeBlock(mesh, look, columns, block));
  if (data.idle) home.append(idleBlock(look));
  home.dataset.devices = mesh.devices;
  meshWords(mesh);
  meshInput(mesh, home);
}

function meshWords(mesh) {
  const each = mesh.perBlock * mesh.perCell;
  const note = [each > 1 ? `One square is ${count(each)} of ${count(mesh.devices)} devices.` : mesh.devices > 1 ? "One square is one device." : "One device."];
  if (mesh.places > 1) note.push(`Its colour is the place on the mesh axis ${data.lanesAxis}${mesh.rest > 1 ? "; squares that stand together have the same lanes" : ""}.${byId("mesh").querySelector(".label") ? " Its lanes are written below." : ""}`);
  else if (mesh.devices > 1) note.push("Every device has all lanes.");
  const names = mesh.others.filter((i) => mesh.axes[i].size > 1).map((i) => mesh.axes[i].name);
  if (names.length) note.push(`${mesh.places > 1 ? "Among them, " : ""}${names.join(", then ")} count${names.length === 1 ? "s" : ""} from left to right and down.`.replace(/^./, (c) => (mesh.places > 1 ? c : c.toUpperCase())));
  if (data.idle) note.push(`${plural(data.idle, "device")} more ${data.idle === 1 ? "stays" : "stay"} idle.`);
  byId("mesh-note").textContent = note.join(" ");
  const legend = byId("mesh-legend");
  if (mesh.places > 1) {
    const stops = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((i) => `rgb(${laneColour(i, 9)})`);
    legend.append(element("li", {}, "lane 0", element("span", { class: "swatch ramp", style: `background: linear-gradient(90deg, ${stops.join(", ")})` }), `lane ${data.padded - 1}`));
  }
  if (mesh.others.some((i) => mesh.axes[i].size > 1 && !mesh.axes[i].states)) {
    legend.append(element("li", {}, element("span", { class: "swatch copy" }), "striped: copies of what another square of the same lanes holds"));
  }
  for (const axis of mesh.axes) byId("mesh-axes").append(element("li", {}, axisText(axis)));
}

function axisText(axis) {
  const head = `${axis.name}, ${plural(axis.size, "place")}: `;
  if (axis.size === 1) return `${head}nothing to split.`;
  if (!axis.states) return `${head}no state is split over it; its devices hold copies.`;
  const rest = data.stateCount - axis.states;
  const what = axis.name === data.lanesAxis ? `${data.padded > data.lanes ? "splits the computation of the lanes" : "splits the lanes"}, ${plural(data.lanesPerDevice, "lane")} on each device; ` : "splits single lanes; ";
  return `${head}${what}${plural(axis.states, "state")}, ${size(axis.bytes)} per device${rest ? `; ${plural(rest, "state")} not split over it` : ""}.`;
}

function meshInput(mesh, home) {
  const cells = [...home.querySelectorAll(".cell")], input = byId("device"), text = byId("device-text");
  let current = 0;
  input.max = mesh.devices - 1;
  const mark = (index, device) => {
    if (device !== undefined) input.value = device;
    cells[current].removeAttribute("aria-current");
    cells[current].tabIndex = -1;
    current = index;
    cells[index].setAttribute("aria-current", "true");
    cells[index].tabIndex = 0;
  };
  const show = (index) => {
    const box = boxOf(mesh, Math.floor(index / mesh.cells), index % mesh.cells);
    mark(index, deviceAt(mesh, coordinates(mesh, box.place, box.other)));
    text.textContent = boxText(mesh, box);
  };
  const indexOf = (event) => cells.indexOf(event.target.closest(".cell"));
  show(0);
  home.addEventListener("pointerover", (event) => { const i = indexOf(event); if (i >= 0) show(i); });
  home.addEventListener("focusin", (event) => { const i = indexOf(event); if (i >= 0) show(i); });
  home.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -mesh.cells, ArrowDown: mesh.cells, Home: -cells.length, End: cells.length }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    cells[Math.max(0, Math.min(cells.length - 1, current + move))].focus();
  });
  input.addEventListener("input", () => {
    const device = Number(input.value);
    if (input.value === "" || !Number.isInteger(device) || device < 0 || device >= mesh.devices) {
      text.textContent = `There are devices 0 to ${mesh.devices - 1}.`;
      return;
    }
    const { place, other } = placeOf(mesh, device);
    mark(Math.floor(place / mesh.perBlock) * mesh.cells + Math.floor(other / mesh.perCell));
    text.textContent = boxText(mesh, { place, lastPlace: place, other, lastOther: other });
  });
}

/* Memory */

const HEIGHT = 300, LEFT = 70, RIGHT = 12, TOP = 26, BOTTOM = 34;

function stepsOf() {
  let at = 0, number = 0;
  return data.steps.map(([pieces, state, held, made, temporaries, peak, slices]) => {
    const width = Math.max(1, pieces);
    const step = { state, held, made, temporaries, peak, slices, pieces, from: at, to: at + width, first: number + 1 };
    at += width;
    number += pieces;
    return step;
  });
}

function limitOf() {
  return data.budget ?? data.usable;
}

function memoryBar() {
  const usable = data.usable ?? 0, budget = data.budget ?? usable;
  const full = budget < usable / 2 ? budget : Math.max(usable, budget);
  const note = byId("memory-note"), home = byId("memory-bar");
  if (!full) {
    note.textContent = "The memory of these devices is not known, and no budget was given.";
    return;
  }
  const whole = Math.max(full, data.peak), part = (bytes) => `${100 * bytes / whole}%`;
  const bar = element("div", { class: "bar" }, element("div", { class: "held", style: `width: ${part(data.held)}` }),
    element("div", { class: "spike", style: `width: ${part(Math.max(0, data.peak - data.held))}` }));
  if (data.budget !== null && data.budget < whole) bar.append(element("div", { class: "limit", style: `left: ${part(data.budget)}` }));
  const share = 100 * data.peak / limitOf();
  const of = data.budget !== null ? `the budget of ${size(data.budget)}` : `${size(data.usable)} that a program can have`;
  const device = data.usable !== null && data.budget !== null ? `; a program can have ${size(data.usable)} of a device` : "";
  const text = `Peak ${size(data.peak)}, ${share < 1 ? share.toPrecision(1) : share.toFixed(0)}% of ${of}${device}.`;
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", text);
  note.textContent = text;
  const end = full === data.budget ? "budget" : "usable memory";
  home.append(bar, element("div", { class: "scale" }, element("span", {}, `held ${size(data.held)}`), element("span", {}, `${end} ${size(full)}`)));
}

function columnsOf(steps, total, width) {
  const held = new Float64Array(width), top = new Float64Array(width), scale = width / total;
  const raise = (c, low, high) => { held[c] = Math.max(held[c], low); top[c] = Math.max(top[c], high); };
  for (const step of steps) {
    const pieces = step.to - step.from, from = Math.min(width - 1, Math.floor(step.from * scale));
    const to = Math.max(from + 1, Math.min(width, Math.round(step.to * scale)));
    const extra = step.peak - step.held - step.made;
    for (let c = from; c < to; c++) {
      const done = to - from === 1 ? pieces - 1 : Math.min(pieces - 1, Math.floor((c - from) / (to - from - 1) * pieces));
      raise(c, step.held + step.made * done / pieces, step.held + step.made * (done + 1) / pieces + extra);
    }
  }
  for (let c = Math.min(width - 1, Math.round(steps.at(-1).to * scale)); c < width; c++) raise(c, data.held, data.held);
  return { held, top };
}

function ticksOf(most) {
  let step = 1;
  while (most / step > 5) step *= 2;
  const ticks = [];
  for (let at = 0; at <= most; at += step) ticks.push(at);
  return ticks;
}

function areaPath(low, high, x, y) {
  let path = "";
  for (let c = 0; c < high.length; c++) path += `${c ? "L" : "M"}${x(c)} ${y(high[c])}L${x(c + 1)} ${y(high[c])}`;
  for (let c = high.length - 1; c >= 0; c--) path += `L${x(c + 1)} ${y(low[c])}L${x(c)} ${y(low[c])}`;
  return `${path}Z`;
}

function linePath(values, end, x, y) {
  let path = "";
  for (let c = 0; c < end; c++) path += `${c ? "L" : "M"}${x(c)} ${y(values[c])}L${x(c + 1)} ${y(values[c])}`;
  return path;
}

function stripes() {
  const pattern = svg("pattern", { id: "stripes", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  pattern.append(svg("rect", { class: "stripe-back", width: 6, height: 6 }), svg("line", { class: "stripe", x1: 1, y1: 0, x2: 1, y2: 6 }));
  const defs = svg("defs");
  defs.append(pattern);
  return defs;
}

function drawChart(steps, worst) {
  const home = byId("chart"), width = Math.max(260, Math.floor(home.clientWidth));
  const plot = width - LEFT - RIGHT, pieces = steps.at(-1).to, total = pieces + Math.max(0.4, pieces * 0.03);
  const limit = limitOf(), near = limit !== null && limit <= 3 * worst.peak;
  const most = Math.max(near ? limit : 0, worst.peak, 1) * 1.06;
  const x = (column) => LEFT + column, y = (bytes) => +(TOP + (HEIGHT - TOP - BOTTOM) * (1 - bytes / most)).toFixed(2);
  const atPiece = (piece) => LEFT + piece / total * plot;
  const { held, top } = columnsOf(steps, total, plot), end = Math.round(pieces / total * plot);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
  picture.append(stripes());
  for (const tick of ticksOf(most)) {
    picture.append(svg("line", { class: tick ? "grid" : "base", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "tick", x: LEFT - 8, y: y(tick) + 4, "text-anchor": "end" }, tick ? size(tick).replace(".0 ", " ") : "0"));
  }
  picture.append(svg("path", { class: "spike", d: areaPath(held, top, x, y) }),
    svg("path", { class: "held", d: areaPath(new Float64Array(plot), held, x, y) }),
    svg("path", { class: "top", d: linePath(top, end, x, y) }));
  const selected = svg("rect", { class: "selected", y: TOP, height: HEIGHT - TOP - BOTTOM, width: 0 });
  picture.append(selected, ...limitMark(limit, near, width, y), ...peakMark(worst, width, atPiece, y), ...xLabels(steps, width));
  home.replaceChildren(picture);
  return { select: (step) => {
    selected.setAttribute("x", atPiece(step.from));
    selected.setAttribute("width", Math.max(2, atPiece(step.to) - atPiece(step.from)));
  }, pieceAt: (px) => (px - LEFT) / plot * total };
}

function limitMark(limit, near, width, y) {
  if (limit === null) return [];
  const name = data.budget !== null ? "budget" : "usable memory";
  if (!near) return [svg("text", { class: "beyond", x: width - RIGHT, y: 14, "text-anchor": "end" }, `${name} ${size(limit)} is far above \u2191`)];
  return [svg("line", { class: "limit", x1: LEFT, x2: width - RIGHT, y1: y(limit), y2: y(limit) }),
    svg("text", { class: "strong", x: width - RIGHT, y: y(limit) - 7, "text-anchor": "end" }, `${name} ${size(limit)}`)];
}

function peakMark(worst, width, atPiece, y) {
  const at = atPiece(worst.to) - Math.min(1, atPiece(worst.to) - atPiece(worst.from)), left = at > width / 2;
  const text = `peak ${size(worst.peak)}`;
  return [svg("circle", { class: "dot peak", cx: at, cy: y(worst.peak), r: 4.5 }),
    svg("text", { class: "strong", x: at + (left ? -10 : 10), y: y(worst.peak) + 16, "text-anchor": left ? "end" : "start" }, text)];
}

function xLabels(steps, width) {
  const pieces = steps.reduce((sum, step) => sum + step.pieces, 0), keys = steps.some((step) => !step.pieces);
  const text = `${plural(pieces, "piece")} in run order${keys && width > 500 ? ", after the key program" : ""}`;
  return [svg("text", { x: LEFT, y: HEIGHT - 12 }, text), svg("text", { x: width - RIGHT, y: HEIGHT - 12, "text-anchor": "end" }, "done")];
}

function stepText(step, index, steps) {
  const last = step.first + step.pieces - 1;
  const who = step.pieces === 0 ? `Before the pieces: ${step.state}`
    : `Piece${step.pieces > 1 ? "s" : ""} ${range(step.first, last)}: ${step.state}${step.pieces > 1 ? ` and ${step.pieces - 1} like it` : ""}`;
  const slices = step.slices > 1 ? `, in ${step.slices} slices of the lanes` : "";
  return `Step ${index + 1} of ${steps.length}. ${who}. Held before ${size(step.held)}, adds ${size(step.made)}, temporaries ${size(step.temporaries)}${slices}, peak ${size(step.peak)}.`;
}

function stepAt(steps, piece) {
  let low = 0, high = steps.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle].to > piece) high = middle; else low = middle + 1;
  }
  return low;
}

function startMemory() {
  const steps = stepsOf();
  if (!steps.length) { byId("memory-section").hidden = true; return; }
  memoryBar();
  const worst = steps.reduce((a, b) => (b.peak > a.peak ? b : a)), home = byId("chart");
  let chart = drawChart(steps, worst), current = steps.indexOf(worst);
  const show = (index) => {
    current = Math.max(0, Math.min(steps.length - 1, index));
    const text = stepText(steps[current], current, steps);
    home.setAttribute("aria-valuenow", current + 1);
    home.setAttribute("aria-valuetext", text);
    byId("readout").textContent = text;
    chart.select(steps[current]);
  };
  home.setAttribute("aria-valuemax", steps.length);
  home.addEventListener("pointermove", (event) => show(stepAt(steps, chart.pieceAt(event.clientX - home.getBoundingClientRect().left))));
  home.addEventListener("pointerdown", (event) => show(stepAt(steps, chart.pieceAt(event.clientX - home.getBoundingClientRect().left))));
  home.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.round(steps.length / 20));
    const next = { ArrowLeft: current - 1, ArrowDown: current - 1, ArrowRight: current + 1, ArrowUp: current + 1, Home: 0,
      End: steps.length - 1, PageUp: current + page, PageDown: current - page }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(next);
  });
  let drawn = home.clientWidth;
  new ResizeObserver(() => {
    if (home.clientWidth === drawn) return;
    drawn = home.clientWidth;
    chart = drawChart(steps, worst);
    show(current);
  }).observe(home);
  chartLegend();
  show(current);
  stepsTable(steps);
}

function chartLegend() {
  const items = [["held", "held"], ["spike", "being made, and temporaries"], ["dot", "peak"], ["chosen", "the step that is told below; point at another"]];
  const limit = limitOf();
  if (limit !== null && limit <= 3 * data.peak) items.push(["limit", data.budget !== null ? "budget" : "usable memory"]);
  for (const [name, text] of items) byId("chart-legend").append(element("li", {}, element("span", { class: `swatch ${name}` }), text));
}

function stepsTable(steps) {
  byId("steps").addEventListener("toggle", () => {
    makeTable(byId("steps-table"), "Steps", [
      { name: "first state", width: 28, text: (s) => s.state, mono: true }, { name: "pieces", width: 8, text: (s) => count(s.pieces), right: true },
      { name: "slices", width: 8, text: (s) => count(s.slices), right: true }, { name: "held before", width: 14, text: (s) => size(s.held), right: true },
      { name: "adds", width: 14, text: (s) => size(s.made), right: true }, { name: "temporaries", width: 14, text: (s) => size(s.temporaries), right: true },
      { name: "peak", width: 14, text: (s) => size(s.peak), right: true },
    ]).fill(steps);
  }, { once: true });
}

/* Tables: rows are made a portion at a time, so that ten thousand cost nothing. */

const PORTION = 100, LARGE_PORTION = 1000;

function makeTable(home, label, columns, onSort) {
  const head = element("tr", { role: "row" }), body = element("tbody", { role: "rowgroup" }), more = element("div", { class: "more" });
  for (const column of columns) {
    const cell = element("th", { role: "columnheader", scope: "col", style: `width: ${column.width}%` });
    if (column.right) cell.className = "right";
    if (column.order && onSort) {
      const button = element("button", { type: "button" }, column.name);
      button.addEventListener("click", () => onSort(column, cell));
      cell.append(button);
    } else cell.append(column.name);
    column.head = cell;
    head.append(cell);
  }
  home.replaceChildren(element("table", { role: "table", "aria-label": label }, element("thead", { role: "rowgroup" }, head), body), more);
  let rows = [], shown = 0;
  const add = (portion) => {
    const part = document.createDocumentFragment();
    for (const row of rows.slice(shown, shown + portion)) part.append(makeRow(columns, row));
    body.append(part);
    shown = Math.min(rows.length, shown + portion);
    more.replaceChildren();
    const left = rows.length - shown;
    for (const next of left ? [PORTION, LARGE_PORTION].filter((p, i) => !i || left > PORTION) : []) {
      const button = element("button", { type: "button" }, `Show ${count(Math.min(next, left))} more of ${count(left)}`);
      button.addEventListener("click", () => add(next));
      more.append(button);
    }
  };
  return { fill: (all) => { rows = all; shown = 0; body.replaceChildren(); add(PORTION); } };
}

function makeRow(columns, row) {
  const made = element("tr", { role: "row" });
  for (const column of columns) {
    const cell = element("td", { role: "cell", "data-label": column.name });
    cell.className = [column.right && "right", column.mono && "mono", column.quiet && "quiet"].filter(Boolean).join(" ");
    cell.append(...(column.mono ? [element("bdi", {}, column.text(row))] : column.prose ? [element("span", {}, ...withCode(column.text(row)))] : [column.text(row)]));
    if (column.hint) cell.title = column.hint(row);
    made.append(cell);
  }
  return made;
}

const BY_TEXT = (at) => (a, b) => (a[at] < b[at] ? 1 : a[at] > b[at] ? -1 : 0);

function stateColumns() {
  return [
    { name: "state", width: 19, text: (g) => g[0], mono: true, order: BY_TEXT(0) },
    { name: "count", width: 5, text: (g) => count(g[1]), right: true, order: (a, b) => a[1] - b[1] },
    { name: "class", width: 11, text: (g) => g[2] },
    { name: "one lane", width: 14, text: (g) => g[3], mono: true },
    { name: "axis", width: 4, text: (g) => g[4] },
    { name: "strategy", width: 8, text: (g) => g[5] },
    { name: "PartitionSpec", width: 12, text: (g) => g[6], mono: true },
    { name: "per device", width: 9, text: (g) => size(g[7]), right: true, order: (a, b) => a[7] - b[7], hint: (g) => `${count(g[7])} bytes` },
    { name: "reason", width: 18, text: (g) => data.reasons[g[8]], quiet: true, prose: true },
  ];
}

let searchTexts = null;

function searchText(index) {
  searchTexts ??= data.groups.map((g) => `${g.slice(0, 7).join("\n")}\n${size(g[7])}\n${data.reasons[g[8]]}`.toLowerCase());
  return searchTexts[index];
}

function matching(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return data.groups;
  // layers/17/w is in the row of layers/*/w
  const wanted = words.map((w) => [w, w.replace(/(^|\/)\d+(?=\/|$)/g, "$1*")]);
  return data.groups.filter((_, i) => wanted.every((forms) => forms.some((w) => w !== "*" && searchText(i).includes(w))));
}

function startStates() {
  const input = byId("search"), matches = byId("matches");
  let order = null;
  const show = () => {
    let rows = matching(input.value);
    if (order) rows = [...rows].sort(order);
    const states = rows.reduce((sum, g) => sum + g[1], 0), all = data.groups.length;
    matches.textContent = input.value.trim() ? `${count(rows.length)} of ${plural(all, "row")} match (${plural(states, "state")})` : `${plural(all, "row")}, ${plural(states, "state")}`;
    table.fill(rows);
  };
  const columns = stateColumns();
  const table = makeTable(byId("states-table"), "States", columns, (column, head) => {
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of columns) other.head.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    order = down ? (a, b) => column.order(b, a) : column.order;
    show();
  });
  columns[7].head.setAttribute("aria-sort", "descending");
  input.addEventListener("input", show);
  show();
}

function startCertificate() {
  if (!byId("certificate-table") || !data.certificate.length) return;
  makeTable(byId("certificate-table"), "Compiled programs", [
    { name: "first state", width: 24, text: (p) => p[0], mono: true }, { name: "pieces", width: 6, text: (p) => count(p[1]), right: true },
    { name: "strategy", width: 10, text: (p) => p[2] }, { name: "seconds", width: 8, text: (p) => p[3].toFixed(2), right: true },
    { name: "outputs", width: 10, text: (p) => size(p[4]), right: true }, { name: "temporaries", width: 10, text: (p) => size(p[5]), right: true },
    { name: "peak", width: 10, text: (p) => size(p[6]), right: true },
    { name: "predicted", width: 10, text: (p) => (p[7] === null ? "-" : size(p[7])), right: true },
    { name: "collectives", width: 12, text: (p) => p[8] },
  ]).fill(data.certificate);
}

startScheme();
startMesh();
startMemory();
startCertificate();
startStates();
