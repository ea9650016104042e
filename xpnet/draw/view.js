"use strict";

// Pictures on canvases: pixels in grey, values in two colours, units as cells; and choices by arrow keys.

const CELL = 12; // canvas pixels of a unit's cell
const WIDE = 64; // columns of a layer that has a row of its own

/** Colours of the page's theme, [red, green, blue], and of strokes, as CSS has them. */
function readPalette() {
  const style = getComputedStyle(document.documentElement);
  const text = (name) => style.getPropertyValue(`--${name}`).trim();
  const rgb = (name) => [1, 3, 5].map((i) => parseInt(text(name).slice(i, i + 2), 16));
  const names = ["dark", "light", "cell", "raises", "lowers"];
  const colours = Object.fromEntries(names.map((name) => [name, rgb(name)]));
  return { rgb: colours, ink: text("ink"), raises: text("raises"), inkRgb: rgb("ink") };
}

/** The colour at `share` of the way from one to another. */
const between = (from, to, share) => from.map((value, i) => value + (to[i] - value) * share);

/** Colours of values from 0 to `top`, from dark to light, as the network's inputs are. */
function greys({ rgb }, top = 1) {
  return (value) => between(rgb.dark, rgb.light, Math.min(Math.max(value / top, 0), 1));
}

/** Colours of values that raise or lower something, by a power of their share of the largest of `values`. */
function signs({ rgb }, values, power = 1) {
  const top = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const strength = (value) => (Math.abs(value) / top) ** power || 0;
  return (value) => between(rgb.cell, value < 0 ? rgb.lowers : rgb.raises, strength(value));
}

/** Paint values as pixels, `columns` in a row, in the colours that `colour` gives them. */
function paintPixels(canvas, values, columns, colour) {
  const rows = Math.ceil(values.length / columns);
  [canvas.width, canvas.height] = [columns, rows];
  const image = new ImageData(columns, rows);
  values.forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** Paint values as cells with gaps, `columns` in a row; the cell `chosen` has a frame. */
function paintCells(canvas, values, columns, colour, chosen, frame) {
  const place = (i) => [(i % columns) * CELL, Math.floor(i / columns) * CELL];
  [canvas.width, canvas.height] = [columns * CELL, Math.ceil(values.length / columns) * CELL];
  const context = canvas.getContext("2d");
  values.forEach((value, i) => {
    const [x, y] = place(i);
    context.fillStyle = `rgb(${colour(value).map(Math.round).join(" ")})`;
    context.beginPath();
    context.roundRect(x + 1, y + 1, CELL - 2, CELL - 2, 2.5);
    context.fill();
  });
  if (chosen === undefined) return;
  const [x, y] = place(chosen);
  context.strokeStyle = frame;
  context.lineWidth = 2;
  context.strokeRect(x + 1, y + 1, CELL - 2, CELL - 2);
}

/** Number of columns for cells, in a square unless `wanted` is given: the next divisor of `count`, if one is near. */
function columnsOf(count, wanted = Math.ceil(Math.sqrt(count))) {
  for (let columns = wanted; columns < 1.5 * wanted; columns++) if (count % columns === 0) return columns;
  return wanted;
}

const isWide = (count) => count > 256; // a layer of so many units has a row of its own
const layerColumns = (count) => (isWide(count) ? columnsOf(count, WIDE) : columnsOf(count));

/** A new element with a class and children. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

/** Let arrow keys move among the buttons in `element`, of which Tab reaches one. */
function moveByArrows(element) {
  const buttons = () => [...element.querySelectorAll("button")];
  const choose = (chosen) => buttons().forEach((button) => (button.tabIndex = button === chosen ? 0 : -1));
  choose(buttons()[0]);
  element.addEventListener("focusin", (event) => choose(event.target));
  element.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (move === undefined) return;
    const all = buttons();
    all[(all.indexOf(event.target) + move + all.length) % all.length].focus();
    event.preventDefault();
  });
}

/** A canvas of units, of which pointer and arrow keys choose one: `chosen(i)`. To screen readers it is a slider. */
function unitCanvas(count, columns, chosen) {
  const canvas = make("canvas", "units");
  const choose = (unit) => chosen(Math.min(Math.max(unit, 0), count - 1));
  const under = (event) => {
    const area = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - area.left) / area.width) * columns);
    const row = Math.floor(((event.clientY - area.top) / area.height) * Math.ceil(count / columns));
    return row * columns + Math.min(Math.max(column, 0), columns - 1);
  };
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "slider");
  canvas.setAttribute("aria-valuemin", 1);
  canvas.setAttribute("aria-valuemax", count);
  canvas.addEventListener("pointerdown", (event) => choose(under(event)));
  canvas.addEventListener("pointermove", (event) => choose(under(event)));
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -count, End: count };
    if (!(event.key in moves)) return;
    choose(Number(canvas.getAttribute("aria-valuenow")) - 1 + moves[event.key]); // from the unit that is shown
    event.preventDefault();
  });
  return canvas;
}
