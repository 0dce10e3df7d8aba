// What a task is drawn on: a small picture, a photo under a mask, boxes with classes, or a label map.
//
// Masks and maps are rasters of whole numbers, one a pixel of the image, so that no brush ever mixes two of them; the
// canvas only shows them, enlarged. gradio gives `element`, `props`, `server`, `upload` and `watch`, and parts.js comes
// before. The component's value is {setup, drawing} from the server and {drawing} to it.
const UNDO = 50;
const BRUSHES = [1, 2, 3, 5, 8, 13, 21, 34];
const SHOWN = 512; // pixels that the longer side is drawn with, at least
const HOLE = [214, 0, 110];
const TOOLS = { mask: ["brush", "fill", "eraser"], labels: ["brush", "fill", "eraser"], boxes: [], image: [] };

let setup = null; // what the server said of the model
let kind = null;
let [width, height] = [0, 0];
let raster = new Uint8Array(0);
let objects = [];
let photo = null; // {name, image}, of a picture that the server keeps
let file = null; // the picture as it was chosen, for another size
let tool = "brush";
let brush = 3; // place in BRUSHES
let chosen = 0; // number of the class
let past = [];
let future = [];
let cursor = null; // of the keyboard
let corner = null; // the first of a box that is being drawn
let view = {};

function button(name, act) {
  return make("button", { type: "button", onclick: act }, text(name));
}

function choices(group, legend, items, current, choose) {
  const boxes = items.map(({ name, colour, value }) => {
    const input = make("input", { type: "radio", name: "latentdiff-" + group, checked: value === current });
    input.addEventListener("change", () => choose(value));
    input.dataset.value = value;
    const swatch = colour ? [make("span", { class: "swatch", style: "background: rgb(" + colour + ")" })] : [];
    return make("label", {}, input, ...swatch, name);
  });
  return make("fieldset", { class: group }, make("legend", {}, legend), ...boxes);
}

function build() {
  const parts = [make("h2", {}, text("canvas." + kind))];
  view = {};
  if (kind === "image" || kind === "mask") {
    view.file = make("input", { type: "file", accept: "image/*", class: "file", "aria-label": text("canvas.open") });
    view.file.addEventListener("change", () => view.file.files[0] && open(view.file.files[0]));
    view.side = make("select", { onchange: () => file && open(file) });
    view.side.append(...setup.sides.map((side) => make("option", { value: side }, side + " px")));
    parts.push(
      make("div", { class: "row" }, view.file, make("span", {}, text("canvas.drop"))),
      make("label", { class: "row" }, text("canvas.side"), view.side),
    );
  }
  view.fault = make("p", { class: "fault", role: "alert" });
  parts.push(view.fault);
  if (kind !== "image") {
    const bar = make("div", { class: "row bar" });
    if (TOOLS[kind].length) {
      const items = TOOLS[kind].map((value) => ({ name: text("canvas." + value), value }));
      view.tools = choices("tool", text("canvas.tool"), items, tool, (value) => (tool = value));
      view.size = make("input", { type: "range", min: 0, max: BRUSHES.length - 1, value: brush });
      view.size.addEventListener("input", () => (brush = Number(view.size.value)));
      bar.append(view.tools, make("label", {}, text("canvas.size"), view.size));
    }
    bar.append(button("canvas.undo", undo), button("canvas.redo", redo), button("canvas.clear", clear));
    parts.push(bar);
  }
  if (setup.classes.length) {
    const items = setup.classes.map(({ name, colour }, value) => ({ name, colour, value }));
    parts.push(choices("class", text("canvas.class"), items, chosen, (value) => (chosen = value)));
  }
  const help = make("p", { class: "help", id: "latentdiff-canvas-help" }, text("canvas.help"));
  view.canvas = make("canvas", {
    tabindex: 0,
    role: kind === "image" ? "img" : "application",
    "aria-label": text("canvas." + kind),
    "aria-describedby": kind === "image" ? null : help.id,
  });
  parts.push(view.canvas);
  if (kind === "boxes") parts.push((view.list = make("ul", { class: "objects" })));
  if (kind !== "image") {
    parts.push(make("details", {}, make("summary", {}, text("canvas.keyboard")), help));
    listen(view.canvas);
  }
  root.replaceChildren(make("div", { class: "latentdiff-canvas " + kind }, ...parts));
}

function begin(drawing) {
  [photo, file, objects, past, future, cursor, corner] = [null, null, [], [], [], null, null];
  [width, height] = [setup.width, setup.height];
  chosen = Math.min(chosen, Math.max(0, setup.classes.length - 1));
  raster = new Uint8Array(width * height);
  build();
  if (drawing) again(drawing);
  else {
    // A label map has a class everywhere, so it is a drawing from the first; the others wait for the user.
    commit(kind === "labels");
  }
  show();
}

async function again(drawing) {
  [width, height, objects] = [drawing.width ?? width, drawing.height ?? height, drawing.objects ?? []];
  raster = drawing.raster ? Uint8Array.from(atob(drawing.raster), (c) => c.charCodeAt(0)) : new Uint8Array(width * height);
  if (drawing.picture) photo = { name: drawing.photo, image: await decoded(drawing.picture) };
  commit();
  show();
}

function decoded(base64) {
  const image = new Image();
  image.src = "data:image/png;base64," + base64;
  return image.decode().then(() => image);
}

// Pictures go to the server as they are, and come back as what will be worked on.
async function open(given) {
  view.fault.textContent = given.size > props.most_bytes ? "" : text("canvas.reading");
  const megabytes = Math.floor(props.most_bytes / 1e6);
  if (given.size > props.most_bytes) return fail(text("error.upload.bytes", { megabytes }));
  const model = setup;
  try {
    const { path } = await upload(given);
    const kept = await server.take_photo({ path, side: Number(view.side.value) });
    if (setup !== model) return;
    if (kept.error) return fail(kept.error);
    file = given;
    photo = { name: kept.photo, image: await decoded(kept.picture) };
    [width, height, past, future] = [kept.width, kept.height, [], []];
    raster = new Uint8Array(width * height);
    view.fault.textContent = "";
    commit();
    show();
  } catch (error) {
    fail(text("canvas.failed", { megabytes }));
  }
}

function fail(message) {
  view.fault.textContent = message;
}

// What is drawn, for the server; nothing where nothing is.
function commit(drawn = true) {
  const value = { kind, width, height };
  if (kind === "image" || kind === "mask") value.photo = photo && photo.name;
  if (kind === "mask" || kind === "labels") value.raster = base64(raster);
  if (kind === "boxes") value.objects = objects;
  if (kind === "boxes") list();
  const empty = kind === "boxes" ? !objects.length : kind !== "labels" && !photo;
  props.value = { drawing: drawn && !empty ? value : null };
}

function base64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

// Undo keeps whole drawings, which are small.
function remember() {
  past.push({ raster: raster.slice(), objects: [...objects] });
  if (past.length > UNDO) past.shift();
  future = [];
}

function step(from, to) {
  if (!from.length) return;
  to.push({ raster, objects });
  ({ raster, objects } = from.pop());
  commit();
  show();
}

const undo = () => step(past, future);
const redo = () => step(future, past);

function clear() {
  remember();
  raster = new Uint8Array(width * height);
  objects = [];
  commit();
  show();
}

// Painting: a brush of n pixels, along a line of whole pixels.
const paint = () => (tool === "eraser" ? 0 : kind === "mask" ? 1 : chosen);

function dab(x, y) {
  const size = BRUSHES[brush];
  const [first, radius] = [Math.floor((size - 1) / 2), size / 2];
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      if ((column + 0.5 - radius) ** 2 + (row + 0.5 - radius) ** 2 > radius ** 2) continue;
      const [px, py] = [x - first + column, y - first + row];
      if (px >= 0 && px < width && py >= 0 && py < height) raster[py * width + px] = paint();
    }
  }
}

function line([x, y], [toX, toY]) {
  const steps = Math.max(Math.abs(toX - x), Math.abs(toY - y), 1);
  for (let i = 0; i <= steps; i++) {
    dab(Math.round(x + ((toX - x) * i) / steps), Math.round(y + ((toY - y) * i) / steps));
  }
}

function fill(x, y) {
  const [from, to] = [raster[y * width + x], kind === "mask" ? 1 : chosen];
  if (from === to) return;
  const open = [[x, y]];
  while (open.length) {
    const [px, py] = open.pop();
    if (px < 0 || px >= width || py < 0 || py >= height || raster[py * width + px] !== from) continue;
    raster[py * width + px] = to;
    open.push([px + 1, py], [px - 1, py], [px, py + 1], [px, py - 1]);
  }
}

function boxOf([x, y], [toX, toY]) {
  return [Math.min(x, toX), Math.min(y, toY), Math.abs(toX - x) + 1, Math.abs(toY - y) + 1];
}

function addBox(from, to) {
  remember();
  objects = [...objects, { class: chosen, box: boxOf(from, to) }];
  commit();
}

const usable = () => kind !== "mask" || photo;

function listen(canvas) {
  let last = null;
  const place = (event) => {
    const area = canvas.getBoundingClientRect();
    const at = (position, length, count) => Math.floor((position / length) * count);
    const x = at(event.clientX - area.left, area.width, width);
    const y = at(event.clientY - area.top, area.height, height);
    return [Math.min(width - 1, Math.max(0, x)), Math.min(height - 1, Math.max(0, y))];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || !usable()) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    last = corner = place(event);
    if (kind === "boxes") return show(boxOf(last, last));
    remember();
    if (tool === "fill") fill(...last);
    else line(last, last);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const now = place(event);
    if (kind === "boxes") return show(boxOf(corner, now));
    if (tool !== "fill") line(last, now);
    last = now;
    show();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!last) return;
    if (kind === "boxes") addBox(corner, place(event));
    last = corner = null;
    commit();
    show();
  });
  canvas.addEventListener("pointercancel", () => {
    if (last && kind !== "boxes") commit();
    last = corner = null;
    show();
  });
  canvas.addEventListener("blur", () => {
    [cursor, corner] = [null, null];
    show();
  });
  canvas.addEventListener("keydown", keys);
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LETTERS = { b: "brush", f: "fill", e: "eraser" };

function keys(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    (key === "y" || event.shiftKey ? redo : undo)();
  } else if (MOVES[key]) {
    const [x, y] = cursor ?? [width >> 1, height >> 1];
    const [dx, dy] = MOVES[key].map((value) => value * (event.shiftKey ? 8 : 1));
    cursor = [Math.min(width - 1, Math.max(0, x + dx)), Math.min(height - 1, Math.max(0, y + dy))];
    show(corner && boxOf(corner, cursor));
  } else if (key === " " && usable()) {
    cursor = cursor ?? [width >> 1, height >> 1];
    if (kind === "boxes") {
      if (corner) addBox(corner, cursor);
      corner = corner ? null : cursor;
      show(corner && boxOf(corner, cursor));
    } else {
      remember();
      if (tool === "fill") fill(...cursor);
      else dab(...cursor);
      commit();
      show();
    }
  } else if (LETTERS[key] && view.tools) {
    tool = LETTERS[key];
    view.tools.querySelector("[data-value=" + tool + "]").checked = true;
  } else if ((key === "+" || key === "-") && view.size) {
    brush = Math.min(BRUSHES.length - 1, Math.max(0, brush + (key === "+" ? 1 : -1)));
    view.size.value = brush;
  } else return;
  event.preventDefault();
}

// Showing: one image pixel is a square of whole pixels of the canvas, which the page then scales without smoothing.
function show(box = null) {
  const { canvas } = view;
  const zoom = Math.max(1, Math.ceil(SHOWN / Math.max(width, height)));
  [canvas.width, canvas.height] = [width * zoom, height * zoom];
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.fillStyle = "white";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  if (photo) pen.drawImage(photo.image, 0, 0, canvas.width, canvas.height);
  if (kind === "mask" || kind === "labels") pen.drawImage(painted(), 0, 0, canvas.width, canvas.height);
  if (kind === "boxes") {
    const pending = box ? [{ class: chosen, box }] : [];
    for (const item of [...objects, ...pending]) drawBox(pen, zoom, item);
  }
  if (cursor) {
    pen.lineWidth = 2;
    for (const [colour, inset] of [["black", 0], ["white", 2]]) {
      pen.strokeStyle = colour;
      pen.strokeRect(cursor[0] * zoom - inset, cursor[1] * zoom - inset, zoom + 2 * inset, zoom + 2 * inset);
    }
  }
}

function painted() {
  const layer = make("canvas", { width, height });
  const image = new ImageData(width, height);
  const colours = kind === "mask" ? [[0, 0, 0], HOLE] : setup.classes.map(({ colour }) => colour);
  raster.forEach((number, place) => {
    image.data.set(colours[number], 4 * place);
    image.data[4 * place + 3] = kind === "labels" ? 255 : number ? 200 : 0;
  });
  layer.getContext("2d").putImageData(image, 0, 0);
  return layer;
}

function drawBox(pen, zoom, item) {
  const { name, colour } = setup.classes[item.class];
  const [x, y, wide, high] = item.box.map((value) => value * zoom);
  pen.strokeStyle = pen.fillStyle = "rgb(" + colour + ")";
  pen.lineWidth = 4;
  pen.strokeRect(x + 2, y + 2, Math.max(1, wide - 4), Math.max(1, high - 4));
  pen.font = "18px sans-serif";
  const place = [Math.min(x, pen.canvas.width - pen.measureText(name).width - 8), Math.min(y, pen.canvas.height - 24)];
  pen.fillRect(...place, pen.measureText(name).width + 8, 24);
  pen.fillStyle = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 127.5 ? "black" : "white";
  pen.fillText(name, place[0] + 4, place[1] + 18);
}

function list() {
  const entries = objects.map((item, place) => {
    const { name } = setup.classes[item.class];
    const remove = make("button", { type: "button", "aria-label": text("canvas.remove", { name }) }, "×");
    remove.addEventListener("click", () => {
      remember();
      objects = objects.filter((_, other) => other !== place);
      commit();
      show();
    });
    return make("li", {}, name + " (" + item.box.join(", ") + ")", remove);
  });
  view.list.replaceChildren(...entries);
}

for (const name of ["dragover", "drop"]) {
  root.addEventListener(name, (event) => {
    if (!view.file) return;
    event.preventDefault();
    if (name === "drop" && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

function take() {
  if (!props.value || !props.value.setup) return;
  ({ setup } = props.value);
  kind = setup.kind;
  element.closest("#canvas").style.display = kind ? "" : "none"; // which would leave a gap
  if (kind) begin(props.value.drawing);
  else root.replaceChildren();
}

watch("value", take);
take();
