"use strict";

// A drawing as the makers of MNIST and of the UCI digits prepared theirs; the steps are those of Python's
// xpnet/data/handwriting.py, behind the search for ink, which a drawing does not need. A picture is an object of its
// `width`, its `height` and its `levels`, row by row, from 0 (paper) to 1 (ink).

const FAINT = 0.1; // level below which a pixel is no ink
const [BOX, MNIST_SIDE] = [20, 28]; // MNIST's box and picture
const FINE = 4; // pixels of the fine grid, on which strokes are measured, in a pixel of MNIST
const [THIN, THICK] = [1.7, 4.2]; // widths of strokes in MNIST, in pixels of its pictures: 5 and 98 % of its digits
const [NIST_WIDTH, NIST_SIDE] = [20, 32]; // of the bitmaps in whose blocks the pixels of the UCI digits were counted

/** The nearest whole number; halves go to the even one, as in Python. */
function round(x) {
  const up = Math.round(x);
  return up - x === 0.5 && up % 2 !== 0 ? up - 1 : up;
}

const level = (picture, x, y) => picture.levels[y * picture.width + x];

/** A picture of a size, whose levels are `f(x, y)`. */
function makePicture(width, height, f) {
  const levels = new Float64Array(width * height);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) levels[y * width + x] = f(x, y);
  return { width, height, levels };
}

/** Smallest rectangle that holds all ink; null where there is none. */
function boxOf({ width, height, levels }) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  levels.forEach((value, i) => {
    if (value <= FAINT) return;
    const [x, y] = [i % width, Math.floor(i / width)];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  });
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

const crop = (picture, { left, top, width, height }) =>
  makePicture(width, height, (x, y) => level(picture, left + x, top + y));

/** For each of `count` equal pieces of a line of pixels: the first pixel below it, and the share of it each has. */
function pieces(length, count) {
  const step = length / count;
  return Array.from({ length: count }, (_, k) => {
    const [start, stop] = [k * step, Math.min((k + 1) * step, length)];
    const first = Math.floor(start);
    const pixels = Array.from({ length: Math.ceil(stop) - first }, (_, i) => first + i);
    const shares = pixels.map((i) => (Math.min(i + 1, stop) - Math.max(i, start)) / (stop - start));
    return { first, shares };
  });
}

/** Area average of a picture: a new pixel is the mean of what lies below it. */
function resize(picture, width, height) {
  const [across, down] = [pieces(picture.width, width), pieces(picture.height, height)];
  const mean = ({ first, shares }, value) => shares.reduce((sum, share, i) => sum + share * value(first + i), 0);
  const flat = makePicture(picture.width, height, (x, y) => mean(down[y], (row) => level(picture, x, row)));
  return makePicture(width, height, (x, y) => mean(across[x], (column) => level(flat, column, y)));
}

/** Resize a picture so that its longer side has `longest` pixels. */
function fit(picture, longest) {
  const scale = longest / Math.max(picture.width, picture.height);
  return resize(picture, Math.max(1, round(picture.width * scale)), Math.max(1, round(picture.height * scale)));
}

/** Whether there is ink at a place, which may be outside the picture. */
function isInk(picture, x, y) {
  return x >= 0 && y >= 0 && x < picture.width && y < picture.height && level(picture, x, y) > 0.5;
}

/** Mean width of the strokes on the fine grid, in pixels of MNIST: twice the area over the length of the outline. */
function strokeWidth(picture) {
  let [area, outline] = [0, 0];
  for (let y = 0; y <= picture.height; y++) {
    for (let x = 0; x <= picture.width; x++) {
      const here = isInk(picture, x, y);
      area += here;
      outline += (here !== isInk(picture, x - 1, y)) + (here !== isInk(picture, x, y - 1));
    }
  }
  return (2 * area) / Math.max((outline * Math.PI) / 4, 1) / FINE;
}

/** Number of connected parts, neighbours at corners included. */
function countParts(picture) {
  const seen = new Set();
  let count = 0;
  picture.levels.forEach((value, i) => {
    if (value <= 0.5 || seen.has(i)) return;
    count++;
    const left = [i];
    while (left.length) {
      const at = left.pop();
      if (seen.has(at)) continue;
      seen.add(at);
      const [x, y] = [at % picture.width, Math.floor(at / picture.width)];
      for (const v of [y - 1, y, y + 1]) {
        for (const h of [x - 1, x, x + 1]) if (isInk(picture, h, v)) left.push(v * picture.width + h);
      }
    }
  });
  return count;
}

/** The picture with a margin of a pixel, each pixel the highest (or lowest) of the nine around it. */
function slide(picture, extreme) {
  return makePicture(picture.width + 2, picture.height + 2, (x, y) => {
    let found = null;
    for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, picture.height + 1); v++) {
      for (let h = Math.max(x - 1, 0); h <= Math.min(x + 1, picture.width + 1); h++) {
        const inside = h > 0 && v > 0 && h <= picture.width && v <= picture.height;
        const value = inside ? level(picture, h - 1, v - 1) : 0;
        found = found === null ? value : extreme(found, value);
      }
    }
    return found;
  });
}

/** Make strokes on the fine grid wider or narrower, by a pixel at a time, until they have a usual width. */
function evenStrokes(picture) {
  for (let times = 0; times < 4 * FINE; times++) {
    const width = strokeWidth(picture);
    if (width >= THIN && width <= THICK) break;
    const changed = slide(picture, width < THIN ? Math.max : Math.min);
    const box = boxOf(changed);
    if (box === null || (width > THICK && countParts(changed) !== countParts(picture))) break;
    picture = fit(crop(changed, box), BOX * FINE);
  }
  return picture;
}

/** Scale to a box of 20x20, and put the centre of mass at the middle of 28x28, by whole pixels. */
function center(picture) {
  const small = fit(picture, BOX);
  const highest = small.levels.reduce((a, b) => Math.max(a, b));
  let [sum, across, down] = [0, 0, 0];
  small.levels.forEach((value, i) => {
    sum += value;
    across += value * (i % small.width);
    down += value * Math.floor(i / small.width);
  });
  const middle = MNIST_SIDE / 2;
  const place = (mean, length) => Math.min(Math.max(Math.floor(middle - mean + 0.5), 0), MNIST_SIDE - length);
  const [left, top] = [place(across / sum, small.width), place(down / sum, small.height)];
  return makePicture(MNIST_SIDE, MNIST_SIDE, (x, y) => {
    const inside = x >= left && y >= top && x < left + small.width && y < top + small.height;
    return inside ? level(small, x - left, y - top) / highest : 0;
  });
}

/** Scale to 20x32 in 32x32, and average each block, side x side: the share of ink in it. */
function countBlocks(picture, side) {
  const width = Math.min(NIST_WIDTH, Math.max(1, round((picture.width * NIST_SIDE) / picture.height)));
  const start = Math.floor((NIST_SIDE - width) / 2);
  const narrow = resize(picture, width, NIST_SIDE);
  const inside = (x) => x >= start && x < start + width;
  const bitmap = makePicture(NIST_SIDE, NIST_SIDE, (x, y) => (inside(x) ? level(narrow, x - start, y) : 0));
  return resize(bitmap, side, side);
}

/**
 * The levels that a network of side x side pictures sees, from 0 to 1; null where there is no ink.
 *
 * Digits are prepared as those of its training pictures; other drawings are averaged, as they are.
 */
function prepare(picture, side, areDigits) {
  const box = boxOf(picture);
  if (box === null) return null;
  if (!areDigits) return resize(picture, side, side).levels;
  const strokes = evenStrokes(fit(crop(picture, box), BOX * FINE));
  return (side === MNIST_SIDE ? center(strokes) : countBlocks(strokes, side)).levels;
}
