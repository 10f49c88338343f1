// A photo to mark: heads by clicks, or a region as a rectangle or a free-hand line.
// `value` is a list of [x, y] in photo pixels, as JSON text, since Gradio copies a real list head
// by head, many times per click. `src`, `width`, `height` describe the photo; `opened` changes with
// each photo, whose empty `value` arrives a moment after the rest; `digest` is of its pixels;
// `saved` has the heads ready for download, `added` those of a file, each with its photo's digest.
const screen = element.querySelector("canvas");
const pen = screen.getContext("2d");
const tools = element.querySelector(".canvas-tools");
const note = element.querySelector(".canvas-hint b"), hint = element.querySelector(".canvas-hint span");
const photo = new Image();
const pointers = new Map();
let tool = screen.dataset.tool, erasing = false, past = [], draft = null, start = null, cursor = null;
let last = "[]"; // the value when it was last drawn or sent
let read = { text: "[]", list: [] }; // the value last parsed
let tapped = { at: -1e9, x: 0, y: 0 }; // the last tap; a double click makes two
let view = { zoom: 1, x: 0, y: 0 }, shown = null;
let pinch = null, several = false; // the fingers' distance; whether two touched since all were up

const kept = new KeptHeads(() => reflect());
const photograph = () => `${props.width}x${props.height} ${props.digest}`;

function points() {
  if (props.value !== read.text) read = { text: props.value, list: JSON.parse(props.value || "[]") };
  return read.list;
}
const heads = () => tool === "heads";
const scale = () =>
  Math.min(screen.clientWidth / props.width, screen.clientHeight / props.height) * view.zoom;
const near = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

const beside = (x, y) => { // whether a point on the screen is outside the photo
  const s = scale(), [across, down] = [x / s + view.x, y / s + view.y], edge = 2 / s;
  return across < -edge || across > props.width + edge || down < -edge || down > props.height + edge;
};
function place(x, y) { // from screen to photo coordinates
  const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), most - 0.01) * 100) / 100;
  const s = scale();
  return [inside(x / s + view.x, props.width), inside(y / s + view.y, props.height)];
}

function layout() {
  if (!props.src) return;
  const sharp = window.devicePixelRatio || 1;
  const ratio = Math.min(Math.max(props.width / props.height, 0.5), 2.5); // panoramas need room
  screen.style.width = `min(100%, max(70vh, 300px) * ${ratio})`;
  screen.style.aspectRatio = ratio;
  screen.width = Math.round(screen.clientWidth * sharp);
  screen.height = Math.round(screen.clientHeight * sharp);
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pan(0, 0);
}

function current() { // hides files that are out of date
  const { digest, heads } = props.saved || {};
  const old = digest !== props.digest || heads !== props.value;
  element.closest('[role="tabpanel"]')?.classList.toggle("unsaved", old);
}

function draw() {
  if (heads()) current();
  const s = scale(), at = ([x, y]) => [(x - view.x) * s, (y - view.y) * s];
  pen.clearRect(0, 0, screen.clientWidth, screen.clientHeight);
  if (photo.complete && photo.naturalWidth) {
    pen.drawImage(photo, -view.x * s, -view.y * s, props.width * s, props.height * s);
  }
  const marks = draft || points();
  pen.lineWidth = 2;
  if (heads()) {
    const apart = view.zoom * Math.sqrt(screen.clientWidth * screen.clientHeight / (marks.length + 1));
    const radius = Math.min(4, Math.max(1.5, apart / 10)); // many heads, small marks
    pen.lineWidth = radius / 2;
    for (const mark of marks) {
      const [x, y] = at(mark);
      pen.beginPath();
      pen.arc(x, y, radius, 0, 7);
      pen.fillStyle = "#ffe100";
      pen.strokeStyle = "#000";
      pen.fill();
      pen.stroke();
    }
  } else if (marks.length > 1) {
    pen.beginPath();
    marks.forEach((mark) => pen.lineTo(...at(mark)));
    pen.closePath();
    pen.fillStyle = "rgba(255, 225, 0, 0.25)";
    pen.fill();
    for (const [colour, dash] of [["#000", []], ["#ffe100", [6, 4]]]) {
      pen.strokeStyle = colour;
      pen.setLineDash(dash);
      pen.stroke();
    }
    pen.setLineDash([]);
  }
  if (cursor && document.activeElement === screen) {
    pen.strokeStyle = "#f0f";
    pen.strokeRect(cursor[0] - 7, cursor[1] - 7, 14, 14);
  }
}

function begin() { // a photo with no heads but those that the browser has kept
  kept.write(); // in case of a click before the empty value arrived
  past = [];
  const inside = ([x, y]) => x !== null && x >= 0 && x < props.width && y >= 0 && y < props.height;
  const list = heads() && props.src ? kept.of(photograph(), inside) : [];
  if (!list.length) return;
  send(list, true); // not undone: a held key would take hours of work
  note.textContent = list.length === 1
    ? "1 head is back; Clear removes it."
    : `${list.length.toLocaleString("en")} heads are back; Clear removes them.`;
}

function send(list, back = false) { // back: restored from storage
  props.value = last = JSON.stringify(list);
  read = { text: last, list };
  note.textContent = "";
  if (heads()) kept.mark(photograph(), list, back);
  trigger("input");
  draw();
}

function set(list) {
  past = [...past.slice(-99), points()];
  send(list);
}

function undo() {
  if (past.length) send(past.pop());
}

function zoom(factor, x = screen.clientWidth / 2, y = screen.clientHeight / 2) {
  const before = scale();
  view.zoom = Math.min(Math.max(view.zoom * factor, 1), 16);
  view.x += x / before - x / scale();
  view.y += y / before - y / scale();
  pan(0, 0);
  reflect();
}

function pan(dx, dy) { // in screen pixels; keeps the photo in view
  const s = scale();
  if (!s) return; // another tab is open, or the canvas's section is closed
  const keep = (value, most) => (most < 0 ? most / 2 : Math.min(Math.max(value, 0), most));
  view.x = keep(view.x - dx / s, props.width - screen.clientWidth / s);
  view.y = keep(view.y - dy / s, props.height - screen.clientHeight / s);
  screen.style.touchAction = heads() && view.zoom === 1 ? "pan-y" : "none";
  draw();
}

function mark(x, y) {
  if (!erasing && beside(x, y)) return;
  const target = place(x, y);
  if (!erasing) return set([...points(), target]);
  const others = points().map((point, i) => [near(point, target), i]).sort((a, b) => a[0] - b[0]);
  if (others.length && others[0][0] * scale() < 20) {
    set(points().filter((_, i) => i !== others[0][1]));
  }
}

const corners = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];

function finish() {
  const done = draft;
  draft = corner = null;
  if (done && done.length > 2) set(done);
  else draw();
}

screen.addEventListener("pointerdown", (event) => {
  if (!props.src || event.button > 1) return; // leave the right mouse button to the browser
  if (event.button === 1) event.preventDefault(); // the middle one moves the photo, not the page
  screen.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
  start = { x: event.offsetX, y: event.offsetY, moved: false };
  several = several || pointers.size > 1 || event.button === 1;
  cursor = null;
  draft = !several && tool === "free" ? [place(event.offsetX, event.offsetY)] : null;
});

screen.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId), now = [event.offsetX, event.offsetY];
  if (!before || !start) return;
  pointers.set(event.pointerId, now);
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()], distance = near(a, b);
    if (pinch) zoom(distance / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    pinch = distance;
    start.moved = true;
    draft = null;
    return;
  }
  if (near(now, [start.x, start.y]) > 5) start.moved = true;
  if (heads() || several) { // after a pinch, the remaining finger moves the photo
    if (start.moved) pan(now[0] - before[0], now[1] - before[1]);
  } else if (tool === "rectangle" && start.moved) {
    draft = corners(place(start.x, start.y), place(...now));
    draw();
  } else if (draft && near(place(...now), draft[draft.length - 1]) * scale() > 2) {
    draft.push(place(...now));
    draw();
  }
});

function lift(event) {
  if (!pointers.delete(event.pointerId)) return;
  pinch = null;
  const x = event.offsetX, y = event.offsetY, tap_ended = start && !start.moved;
  const apart = event.pointerType === "mouse" ? 4 : 16; // fingers are less precise
  const twice = event.timeStamp - tapped.at < 400 && near([x, y], [tapped.x, tapped.y]) < apart;
  if (tap_ended && event.type === "pointerup" && !several) tapped = { at: event.timeStamp, x, y };
  if (event.type === "pointercancel" || several) draft = null;
  else if (tap_ended && twice && tool !== "free") draw();
  else if (tap_ended && heads()) mark(x, y);
  else if (tap_ended && tool === "rectangle") tap(x, y);
  else if (!pointers.size) finish();
  if (!pointers.size) { start = null; several = false; }
}
screen.addEventListener("pointerup", lift);
screen.addEventListener("pointercancel", lift);

screen.addEventListener("wheel", (event) => {
  if (event.shiftKey && !event.ctrlKey && props.src && view.zoom > 1) {
    event.preventDefault();
    return pan(-event.deltaX, -event.deltaY);
  }
  if (!event.ctrlKey || !props.src) return; // without Ctrl the page scrolls
  event.preventDefault();
  const lines = event.deltaMode ? 33 : 1; // pixels: a notch of a wheel is 100, a trackpad's step 1 to 10
  const factor = Math.exp(-event.deltaY * lines * 0.01);
  zoom(Math.min(Math.max(factor, 0.8), 1.25), event.offsetX, event.offsetY);
}, { passive: false });

let corner = null; // the first corner of a rectangle set by two taps or keys
function tap(x, y) {
  const other = place(x, y);
  if (corner) set(corners(corner, other));
  cursor = corner ? null : [x, y];
  corner = corner ? null : other;
  draw();
}
function step_to([x, y]) { // at the edge of the view, the photo moves instead
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  cursor = [inside(x, screen.clientWidth), inside(y, screen.clientHeight)];
  pan(cursor[0] - x, cursor[1] - y);
}
screen.addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey, back = command && event.key === "z";
  if (!props.src || ((command || event.altKey) && !back)) return; // browser shortcuts
  const step = event.shiftKey ? 1 : 10;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  cursor = cursor || [screen.clientWidth / 2, screen.clientHeight / 2];
  if (moves[event.key]) step_to(cursor.map((value, i) => value + moves[event.key][i]));
  else if (event.key === "Enter" || event.key === " ") {
    if (event.repeat) return event.preventDefault(); // a held key marks only once
    if (heads()) mark(...cursor);
    else { const at = cursor; tap(...at); cursor = at; }
  } else if (event.key === "Escape" && corner) corner = null;
  else if (event.key === "Backspace" || back) event.repeat || undo();
  else if (event.key === "+") zoom(1.5, ...cursor);
  else if (event.key === "-") zoom(1 / 1.5, ...cursor);
  else return;
  event.preventDefault();
  draft = corner && !heads() ? corners(corner, place(...cursor)) : null;
  draw();
});
screen.addEventListener("blur", draw);
screen.addEventListener("focus", () => { // from the keyboard: show where Enter would mark
  if (screen.matches(":focus-visible")) {
    cursor = cursor || [screen.clientWidth / 2, screen.clientHeight / 2];
  }
  draw();
});

const press = {
  undo,
  clear: () => points().length && set([]),
  "zoom-in": () => zoom(1.5),
  "zoom-out": () => zoom(1 / 1.5),
  "move-left": () => pan(screen.clientWidth / 3, 0),
  "move-right": () => pan(-screen.clientWidth / 3, 0),
  "move-up": () => pan(0, screen.clientHeight / 3),
  "move-down": () => pan(0, -screen.clientHeight / 3),
  erase: () => { erasing = !erasing; },
  rectangle: () => { tool = "rectangle"; corner = null; },
  free: () => { tool = "free"; corner = null; },
};
function reflect() {
  const active = { erase: erasing, rectangle: tool === "rectangle", free: tool === "free" };
  for (const button of tools.querySelectorAll("button")) {
    const name = button.dataset.do;
    const own = name in active;
    const others = heads() ? ["rectangle", "free"] : ["erase"];
    button.hidden = others.includes(name) || (name.startsWith("move") && view.zoom === 1);
    if (own) button.setAttribute("aria-pressed", active[name]);
  }
  hint.textContent = heads()
    ? "Click each head. To zoom, use Ctrl and the wheel or two fingers; drag to move the zoomed photo. " +
      "Keys: arrows (hold Shift for small steps), Enter, Backspace, + and -. " + (kept.hasRoom
        ? `Heads stay in this browser for the last ${KeptHeads.MOST} photos: ` +
          "choose the same photo again and they are back."
        : "This browser has no room for the heads: save and download them before you leave.")
    : "Draw around a part of the photo, or tap two corners of a rectangle. To zoom, use Ctrl and the " +
      "wheel or two fingers; to move the zoomed photo, Shift and the wheel or two fingers. Keys: arrows " +
      "(hold Shift for small steps), Enter at two corners.";
}
tools.addEventListener("click", (event) => {
  const name = event.target.closest("button")?.dataset.do;
  if (!name || !props.src) return;
  tapped.at = -1e9;
  press[name]();
  reflect();
  pan(0, 0);
});

function source() { // `src` is a data URL or a file on the server
  const { root, api_prefix: api } = window.gradio_config, path = props.src.split("/");
  const file = path.map(encodeURIComponent).join("/");
  return props.src.startsWith("data:") ? props.src : `${root}${api}/file=${file}`;
}
function refresh() {
  element.querySelector(".canvas").hidden = !props.src;
  const other = props.value !== last, another = shown !== props.opened;
  if (another) {
    shown = props.opened;
    past = [];
    tapped.at = -1e9;
    kept.next();
    note.textContent = "";
    view = { zoom: 1, x: 0, y: 0 };
    reflect();
    photo.src = props.src && source();
  }
  last = props.value;
  draft = corner = null;
  layout();
  if (props.src) pan(0, 0);
  if ((another || other) && !points().length) begin();
}
photo.addEventListener("load", draw);
new ResizeObserver(layout).observe(screen);
let due = false; // an update changes several properties, one after another
watch(["value", "src", "width", "height", "digest", "opened"], () => {
  if (due) return;
  due = true;
  queueMicrotask(() => { due = false; refresh(); });
});
watch(["saved"], draw);
watch(["added"], () => {
  const { digest, heads } = props.added;
  const more = JSON.parse(heads || "[]");
  if (digest === props.digest && more.length) set([...points(), ...more]);
});
function downloaded(event) {
  if (!event.detail) {
    note.textContent = "The file could not be downloaded. Press Save the heads again.";
    return;
  }
  const { digest, heads } = props.saved;
  if (digest === props.digest && heads === props.value) kept.downloaded();
}
function sharpen() { // when the screen or the browser's zoom changes
  const now = matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
  now.addEventListener("change", () => { layout(); sharpen(); }, { once: true });
}
sharpen();
let own = false; // a reload by Gradio, not the visitor, after a lost connection is back
window.navigation?.addEventListener("navigate", (event) => {
  own = event.navigationType === "reload" && !event.userInitiated;
});
function ask(event) { // except for that reload, without which the page would stay dead
  if (element.isConnected && !kept.mayLeave(own)) event.preventDefault();
}
if (heads()) {
  window.addEventListener("heads-downloaded", downloaded);
  window.addEventListener("pagehide", () => kept.leave());
  window.addEventListener("beforeunload", ask);
}
reflect();
refresh();
