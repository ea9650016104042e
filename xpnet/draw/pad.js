"use strict";

// The pad: strokes by mouse, finger, pen or keyboard, which can be undone one by one.

const SIDE = 160; // pixels of the ink that is prepared
const PEN = 0.075; // width of a stroke, as a share of the pad's side
const STEP = 1 / 40; // of the keyboard's cursor, as a share of the side

/** A drawing: marks in the order they were made. A mark is a stroke, an example, or a clearing of all before it. */
class Drawing {
  constructor() {
    this.marks = [];
  }

  /** The example that is shown; undefined once something is drawn. */
  get example() {
    return this.marks.at(-1)?.example;
  }

  /** Points of the strokes that are shown, [x, y] from 0 to 1: those since the last example or clearing. */
  get strokes() {
    const since = this.marks.findLastIndex((mark) => !mark.points) + 1;
    return this.marks.slice(since).map((mark) => mark.points);
  }

  get empty() {
    return this.example === undefined && this.strokes.length === 0;
  }

  begin(point) {
    this.marks.push({ points: [point] });
  }

  extend(point) {
    this.marks.at(-1).points.push(point);
  }

  show(example) {
    this.marks.push({ example });
  }

  clear() {
    if (!this.empty) this.marks.push({});
  }

  undo() {
    this.marks.pop();
  }
}

/** Draw strokes on a canvas of some side, as smooth curves through the midpoints of their points. */
function trace(context, strokes, side) {
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    const points = stroke.map(([x, y]) => [x * side, y * side]);
    context.beginPath();
    context.moveTo(...points[0]);
    points.slice(1).forEach(([x, y], i) => {
      const [before, behind] = points[i];
      context.quadraticCurveTo(before, behind, (before + x) / 2, (behind + y) / 2);
    });
    const [x, y] = points.at(-1);
    context.lineTo(x + 0.01, y); // a tap is a dot, and lines without length are not drawn
    context.stroke();
  }
}

/** The pad on a canvas; calls `changed()` after each change of the drawing. */
class Pad {
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.drawing = new Drawing();
    this.cursor = null; // the keyboard's, [x, y] from 0 to 1
    this.penDown = false; // the keyboard's
    this.pointer = null; // the one that is drawing
    this.inkCanvas = document.createElement("canvas");
    this.inkCanvas.width = this.inkCanvas.height = SIDE;
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.release(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.hideCursor());
  }

  /** Apply `change` to the drawing, and report it. */
  edit(change) {
    change(this.drawing);
    this.changed();
  }

  /** Change the drawing as a whole: a stroke that is being drawn ends before. */
  replace(change) {
    this.pointer = null;
    this.penDown = false;
    this.edit(change);
  }

  undo() {
    this.replace((drawing) => drawing.undo());
  }

  clear() {
    this.replace((drawing) => drawing.clear());
  }

  show(example) {
    this.replace((drawing) => drawing.show(example));
  }

  /** The ink of the strokes, a picture of SIDE x SIDE. */
  ink() {
    const context = this.inkCanvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "black";
    context.fillRect(0, 0, SIDE, SIDE);
    context.strokeStyle = "white";
    trace(context, this.drawing.strokes, SIDE);
    const { data } = context.getImageData(0, 0, SIDE, SIDE);
    return makePicture(SIDE, SIDE, (x, y) => data[4 * (y * SIDE + x)] / 255);
  }

  pointOf(event) {
    const area = this.canvas.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
  }

  press(event) {
    if (this.pointer !== null || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.hideCursor();
    this.edit((drawing) => drawing.begin(this.pointOf(event)));
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const between = event.getCoalescedEvents?.() ?? [];
    const points = (between.length ? between : [event]).map((one) => this.pointOf(one));
    this.edit((drawing) => points.forEach((point) => drawing.extend(point)));
  }

  release(event) {
    if (event.pointerId === this.pointer) this.pointer = null;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [x, y] = this.cursor ?? [0.5, 0.25];
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) this.moveCursor(moves[event.key].map((move, axis) => [x, y][axis] + move * STEP));
    else if (event.key === " ") this.togglePen([x, y]);
    else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else return;
    event.preventDefault();
  }

  moveCursor(point) {
    this.cursor = point.map((value) => Math.min(Math.max(value, 0), 1));
    this.edit((drawing) => this.penDown && drawing.extend(this.cursor));
  }

  togglePen(point) {
    this.cursor = point;
    this.penDown = !this.penDown;
    this.edit((drawing) => this.penDown && drawing.begin(point));
  }

  hideCursor() {
    this.cursor = null;
    this.penDown = false;
    this.changed();
  }

  /** Paint the pad: the example's pixels, or the strokes, and the cursor. */
  paint(palette, exampleCanvas) {
    const context = this.canvas.getContext("2d");
    const side = this.canvas.width;
    context.clearRect(0, 0, side, side);
    context.imageSmoothingEnabled = false;
    if (exampleCanvas) context.drawImage(exampleCanvas, 0, 0, side, side);
    context.strokeStyle = palette.ink;
    trace(context, this.drawing.strokes, side);
    if (this.cursor) this.paintCursor(context, side, palette);
  }

  paintCursor(context, side, palette) {
    const [x, y] = this.cursor.map((value) => value * side);
    context.beginPath();
    context.arc(x, y, (PEN * side) / 2, 0, 2 * Math.PI);
    context.lineWidth = 4;
    context.strokeStyle = palette.raises;
    context.stroke();
    context.fillStyle = palette.raises;
    if (this.penDown) context.fill();
  }
}
