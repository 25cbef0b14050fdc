// The page that runs the network: the reader draws on an image, a worker repairs and scores it, and the maps are shown.
// state = {size, threshold, scoreRange, stepRange, heat: {viridis, inferno}, strokes, items: [{name, classNumber,
// picture, palette}]}; heat tables are 256 colours in base64. For tests, `window.timenet` gives the numbers:
//   ready      a promise that is kept when the untouched image has its first repair
//   settled()  a promise that is kept when nothing is left to compute; with no network, at once
//   numbers()  {name, image, clean, noise, reconstruction (3 x size x size), stroke, timestepMap, scoreMap (size x size),
//              imageScore, threshold, milliseconds, classNumber}

const state = JSON.parse(document.getElementById("state").textContent);
const { size } = state;
const byId = (id) => document.getElementById(id);
const drawing = byId("drawing");
const pad = drawing.getContext("2d", { willReadFrequently: true });
const strokes = document.createElement("canvas"); // what was drawn, without the image
strokes.width = strokes.height = size;
const ink = strokes.getContext("2d", { willReadFrequently: true });

let worker = null;
let item = null; // the image that is drawn on
let choices = 0;
let clean = null; // the untouched image, 3 x size x size in [-1, 1]
let noise = null;
let seed = 1;
let shown = null; // the last result, with the image that it belongs to
let busy = false;
let wanted = false;
let scripted = 0;
let waiting = []; // for settled()

// ---- numbers

function toBytes(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpack(id) {
  const node = byId(id);
  const packed = new Blob([toBytes(node.textContent)]);
  node.remove();
  return new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// Numbers from N(0, 1) that depend on the seed alone: mulberry32, then Box and Muller.
function makeNoise(from, count) {
  let a = from;
  const uniform = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

function pixelsOf(context) {
  const { data } = context.getImageData(0, 0, size, size);
  const values = new Float32Array(3 * size * size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) values[c * size * size + i] = data[4 * i + c] / 127.5 - 1;
  }
  return values;
}

function strokeMask() {
  const { data } = ink.getImageData(0, 0, size, size);
  return Uint8Array.from({ length: size * size }, (_, i) => (data[4 * i + 3] > 127 ? 1 : 0));
}

// ---- pictures

function showColours(id, colour) {
  const context = byId(id).getContext("2d");
  const picture = context.createImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    picture.data.set(colour(i), 4 * i);
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function showMap(id, map, [low, high], table) {
  showColours(id, (i) => {
    const unit = Math.min(1, Math.max(0, (map[i] - low) / (high - low)));
    const entry = 3 * Math.min(255, Math.floor(256 * unit));
    return table.subarray(entry, entry + 3);
  });
}

const tables = { viridis: toBytes(state.heat.viridis), inferno: toBytes(state.heat.inferno) };

function show(result) {
  shown = result;
  byId("problem").hidden = true;
  const { name, reconstruction, timestepMap, scoreMap, imageScore, milliseconds } = shown;
  const area = size * size;
  showColours("repair", (i) => [0, 1, 2].map((c) => Math.round((reconstruction[c * area + i] + 1) * 127.5)));
  showMap("steps", timestepMap, state.stepRange, tables.viridis);
  showMap("scores", scoreMap, state.scoreRange, tables.inferno);
  const defective = imageScore >= state.threshold;
  const numbers = `score ${imageScore.toFixed(2)}, ${defective ? "at or above" : "below"} the threshold ${state.threshold.toFixed(2)}`;
  const verdict = byId("verdict");
  verdict.textContent = `${defective ? "Defective" : "No defect found"}: ${numbers}.`;
  verdict.className = `live-verdict ${defective ? "defective" : "sound"}`;
  byId("time").textContent = `The network took ${Math.round(milliseconds)} ms here.`;
  byId("repair").setAttribute("aria-label", `TimeNet's repair of ${name}`);
  const lowest = timestepMap.reduce((a, b) => Math.min(a, b));
  byId("steps").setAttribute("aria-label", `T map of ${name}, lowest T ${lowest.toFixed(2)}`);
  const highest = scoreMap.reduce((a, b) => Math.max(a, b));
  byId("scores").setAttribute("aria-label", `score map of ${name}, highest value ${highest.toFixed(1)}`);
}

// ---- the network

function ask() {
  wanted = true;
  if (busy || !worker) return;
  busy = true;
  wanted = false;
  const image = pixelsOf(pad);
  const asked = { name: item.name, image, stroke: strokeMask(), clean, noise, classNumber: item.classNumber };
  worker.onmessage = ({ data }) => answer(data, asked);
  worker.postMessage({ image, noise, classNumber: item.classNumber, size });
}

function answer(data, asked) {
  busy = false;
  if (data.error) fail(`The network could not run: ${data.error}`);
  else show({ ...asked, ...data });
  if (wanted) return ask();
  if (!painting) byId("spoken").textContent = byId("verdict").textContent;
  for (const done of waiting.splice(0)) done();
}

const settled = () => (busy || (wanted && worker) ? new Promise((done) => waiting.push(done)) : Promise.resolve());

function fail(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = false;
  byId("verdict").textContent = "";
  byId("verdict").className = "live-verdict";
}

// ---- drawing

let painting = null; // {pointerId, point}: which pointer draws, and the last point of its stroke
let cursor = [size / 2, size / 2]; // the keyboard's brush

const brush = () => Number(byId("width").value);
const colour = () => {
  const chosen = document.querySelector("input[name=colour]:checked").value;
  return chosen === "own" ? byId("own").value : chosen;
};

function paint(from, to) {
  for (const context of [pad, ink]) {
    context.fillStyle = context.strokeStyle = colour();
    context.lineWidth = brush();
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.arc(...to, brush() / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  }
}

function place(event) {
  const box = drawing.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * size, ((event.clientY - box.top) / box.height) * size];
}

function moveRing([x, y]) {
  const ring = byId("ring");
  ring.style.left = `${(100 * x) / size}%`;
  ring.style.top = `${(100 * y) / size}%`;
  ring.style.width = ring.style.height = `${(100 * brush()) / size}%`;
}

function clear() {
  ink.clearRect(0, 0, size, size);
  pad.drawImage(item.image, 0, 0);
}

function showOne() {
  clear();
  const points = state.strokes[scripted++ % state.strokes.length];
  for (let i = 1; i < points.length; i++) paint(points[i - 1], points[i]);
  ask();
}

function drawingKeys(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (!move && event.key !== " " && event.key !== "Enter") return;
  event.preventDefault();
  const before = cursor;
  if (move) cursor = cursor.map((value, i) => Math.min(size, Math.max(0, value + 2 * move[i])));
  moveRing(cursor);
  if (move && !event.shiftKey) return;
  paint(move ? before : cursor, cursor);
  ask();
}

// Whether an event belongs to another pointer than the one that draws: a second finger draws nothing.
const isOther = (event) => painting !== null && event.pointerId !== painting.pointerId;

function listen() {
  drawing.addEventListener("pointerdown", (event) => {
    const { pointerId } = event;
    if (event.button !== 0 || isOther(event)) return;
    const point = place(event);
    drawing.setPointerCapture(pointerId);
    painting = { pointerId, point };
    paint(point, point);
    ask();
  });
  drawing.addEventListener("pointermove", (event) => {
    if (isOther(event)) return;
    const now = place(event);
    cursor = now;
    moveRing(now);
    if (!painting) return;
    paint(painting.point, now);
    painting.point = now;
    ask();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    drawing.addEventListener(end, (event) => {
      if (!painting || isOther(event)) return;
      painting = null;
      ask();
    });
  }
  drawing.addEventListener("keydown", drawingKeys);
  drawing.addEventListener("focus", () => moveRing(cursor));
  byId("image").addEventListener("change", () => choose(Number(byId("image").value)));
  byId("width").addEventListener("input", () => {
    byId("width-now").textContent = `${brush()} of ${size} px`;
  });
  byId("own").addEventListener("input", () => {
    document.querySelector("input[name=colour][value=own]").checked = true;
  });
  byId("one").addEventListener("click", showOne);
  byId("clear").addEventListener("click", () => {
    clear();
    ask();
  });
  byId("noise").addEventListener("click", () => {
    setNoise(seed + 1);
    ask();
  });
}

// ---- images

function setNoise(to) {
  seed = to;
  noise = makeNoise(seed, 3 * size * size);
  byId("noise-now").textContent = `noise ${seed}`;
}

function makeSwatches() {
  const row = byId("swatches");
  row.replaceChildren();
  const colours = [...item.palette.map((value, i) => [value, `colour ${i + 1} of the image`]),
    ["#ffffff", "white"], ["#000000", "black"]];
  colours.forEach(([value, name], i) => {
    const label = document.createElement("label");
    label.className = "live-swatch";
    label.title = name;
    const radio = document.createElement("input");
    Object.assign(radio, { type: "radio", name: "colour", value, checked: i === 0 });
    radio.setAttribute("aria-label", name);
    label.style.background = value;
    label.append(radio);
    row.append(label);
  });
}

async function choose(index) {
  const choice = ++choices;
  const next = state.items[index];
  if (!next.image) {
    const image = new Image();
    image.src = next.picture;
    await image.decode();
    next.image = image;
  }
  if (choice !== choices) return; // another was chosen meanwhile
  item = next;
  makeSwatches();
  clear();
  clean = pixelsOf(pad);
  ask();
}

async function start() {
  const missing = ["WebAssembly", "DecompressionStream", "Worker"].filter((name) => !(name in window));
  if (missing.length > 0) {
    return fail(`This browser lacks ${missing.join(" and ")}, which the network needs: open the page in a newer one.`);
  }
  setNoise(seed);
  await choose(0);
  state.items.forEach(({ name }, index) => byId("image").append(new Option(name, index)));
  listen(); // only now is there an image to draw on
  const [runtime, wasm, model] = await Promise.all(["runtime", "wasm", "model"].map(unpack));
  const code = new Blob([byId("worker").textContent], { type: "text/javascript" });
  const started = new Worker(URL.createObjectURL(code));
  await new Promise((done, refuse) => {
    started.onerror = (event) => refuse(new Error(event.message || "its worker did not start"));
    started.onmessage = ({ data }) => (data.error ? refuse(new Error(data.error)) : done());
    started.postMessage({ runtime, wasm, model: new Uint8Array(model) }, [runtime, wasm, model]);
  });
  worker = started;
  ask();
  await settled();
  document.body.dataset.ready = "true";
}

window.timenet = {
  ready: start().catch((error) => fail(`The network could not be started: ${error.message}`)),
  settled,
  numbers: () => ({ ...shown, threshold: state.threshold }),
};
