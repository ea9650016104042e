"use strict";

// A drawing as the makers of MNIST and of the UCI digits prepared theirs; the steps are those of Python's
// xpnet/data/handwriting.py from `shape` on: the search for ink is not needed here. A picture is an object of its
// `width`, its `height` and its `levels`, row by row, from 0 (paper) to 1 (ink).

const FAINT = 0.1; // level below which a pixel is no ink
const [BOX, MNIST_SIDE] = [20, 28]; // MNIST's box and picture
const FINE = 4; // pixels of the fine grid, on which strokes are measured, in a pixel of MNIST
const WIDTHS = { 28: [1.7, 4.2], 8: [3.4, 4.6] }; // usual widths of strokes, in pixels of MNIST, by the picture's side
const [SLANT, UPRIGHT] = [0.05, 0.5]; // slant of an upright digit of MNIST, and the share of the way to it
const TURN = 0.5; // slope of columns over that of rows
const ENDS = 4; // rows at the top and at the bottom by whose ink the UCI digits are made upright
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

/** Part of a picture in the smallest rectangle around its ink. */
function cropped(picture) {
  const { left, top, width, height } = boxOf(picture);
  return makePicture(width, height, (x, y) => level(picture, left + x, top + y));
}

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

/** Numbers of connected parts, neighbours at corners included: of the ink, and of the ground in and around it. */
function countParts(picture) {
  const [width, height] = [picture.width + 2, picture.height + 2]; // with a margin of ground
  const ink = makePicture(width, height, (x, y) => Number(isInk(picture, x - 1, y - 1))).levels;
  const seen = new Set();
  const counts = [0, 0];
  ink.forEach((kind, i) => {
    if (seen.has(i)) return;
    counts[kind]++;
    const left = [i];
    while (left.length) {
      const at = left.pop();
      if (seen.has(at) || ink[at] !== kind) continue;
      seen.add(at);
      const [x, y] = [at % width, Math.floor(at / width)];
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let h = Math.max(x - 1, 0); h <= Math.min(x + 1, width - 1); h++) left.push(v * width + h);
      }
    }
  });
  return { ink: counts[1], ground: counts[0] };
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

/** Make strokes on the fine grid wider or narrower, by a pixel at a time, until their width is in a range. */
function evenStrokes(picture, [thin, thick]) {
  for (let times = 0; times < 4 * FINE; times++) {
    const width = strokeWidth(picture);
    if (width >= thin && width <= thick) break;
    const widen = width < thin;
    const changed = slide(picture, widen ? Math.max : Math.min);
    const [before, after] = [countParts(picture), countParts(changed)];
    if (!widen && (after.ink !== before.ink || after.ground !== before.ground)) break;
    picture = fit(cropped(changed), BOX * FINE);
  }
  return picture;
}

/** Columns that a digit leans to the right in each row upwards: covariance of x and -y, over the variance of y. */
function slant(picture) {
  const [meanX, meanY] = centerOfMass(picture);
  let [covariance, variance] = [0, 0];
  picture.levels.forEach((value, i) => {
    const [x, y] = [(i % picture.width) - meanX, Math.floor(i / picture.width) - meanY];
    covariance -= value * x * y;
    variance += value * y * y;
  });
  return variance > 0 ? covariance / variance : 0;
}

/** Slant of the line through the leftmost ink in the highest and in the lowest rows. */
function leftSlant(picture) {
  const { width, height } = picture;
  const leftmost = Array.from({ length: height }, (_, y) => {
    for (let x = 0; x < width; x++) if (isInk(picture, x, y)) return x;
    return Infinity;
  });
  const rows = leftmost.flatMap((x, y) => (x < Infinity ? [y] : []));
  if (rows.length <= ENDS) return 0;
  const [top, bottom] = [rows[0], rows.at(-1) + 1];
  const [first, last] = [leftmost.slice(top, top + ENDS), leftmost.slice(bottom - ENDS, bottom)];
  return (Math.min(...first) - Math.min(...last)) / (bottom - top - ENDS);
}

const transposed = (picture) => makePicture(picture.height, picture.width, (x, y) => level(picture, y, x));

/** Reduce the slant of a digit by `slope`: shift its rows, those below the middle to the right. */
function shear(picture, slope) {
  const { width, height } = picture;
  const middle = (height - 1) / 2;
  const margin = Math.ceil(Math.abs(slope) * middle) + 1;
  const at = (x, y) => (x >= 0 && x < width ? level(picture, x, y) : 0);
  return makePicture(width + 2 * margin, height, (x, y) => {
    const from = x - margin - slope * (y - middle);
    const [left, share] = [Math.floor(from), from - Math.floor(from)];
    return at(left, y) + share * (at(left + 1, y) - at(left, y));
  });
}

/** Means of the columns and of the rows of ink. */
function centerOfMass({ width, levels }) {
  let [sum, across, down] = [0, 0, 0];
  levels.forEach((value, i) => {
    sum += value;
    across += value * (i % width);
    down += value * Math.floor(i / width);
  });
  return [across / sum, down / sum];
}

/** Scale to a box of 20x20, and put the centre of mass at the middle of 28x28, by whole pixels. */
function center(picture) {
  const small = fit(picture, BOX);
  const highest = small.levels.reduce((a, b) => Math.max(a, b));
  const [across, down] = centerOfMass(small);
  const middle = MNIST_SIDE / 2;
  const place = (mean, length) => Math.min(Math.max(Math.floor(middle - mean + 0.5), 0), MNIST_SIDE - length);
  const [left, top] = [place(across, small.width), place(down, small.height)];
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
  if (boxOf(picture) === null) return null;
  if (!areDigits) return resize(picture, side, side).levels;
  const strokes = evenStrokes(fit(cropped(picture), BOX * FINE), WIDTHS[side]);
  const lean = side === MNIST_SIDE ? UPRIGHT * (slant(strokes) - SLANT) : leftSlant(strokes);
  const upright = cropped(transposed(shear(transposed(shear(strokes, lean)), -TURN * lean)));
  return (side === MNIST_SIDE ? center(upright) : countBlocks(upright, side)).levels;
}
