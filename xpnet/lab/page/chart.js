// Line charts in SVG, as wide as their place, so that their letters keep their size on a phone.
"use strict";

const MARGIN = { left: 56, right: 14, top: 26, bottom: 40 };

// Make an SVG element with attributes and children.
function drawn(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// A text in the page's language: one in both languages is [English, Korean].
function written(words, attributes) {
  if (typeof words === "string") return [drawn("text", attributes, words)];
  return words.map((text, i) => drawn("text", { ...attributes, lang: ["en", "ko"][i] }, text));
}

// Round numbers between two bounds: for a logarithmic axis powers of ten.
function ticks([low, high], logarithmic) {
  if (logarithmic) {
    const first = Math.ceil(Math.log10(low) - 1e-9);
    const last = Math.floor(Math.log10(high) + 1e-9);
    const every = Math.max(1, Math.ceil((last - first) / 6));
    return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => 10 ** (first + i * every));
  }
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

// A number in few letters.
function brief(number) {
  if (!Number.isFinite(number)) return "∞";
  const size = Math.abs(number);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    const [digits, power] = number.toExponential(3).split("e");
    return `${Number(digits)}e${Number(power)}`.replace("-", "−").replace("e-", "e−");
  }
  return String(Number(number.toPrecision(6))).replace("-", "−");
}

// Draw lines into an SVG element.
//   x, y: axes: { from, to, label, logarithmic }
//   lines: { points: [[x, y], ...], style: a class of CSS, dots: whether its points are marked }
function draw(svg, { x, y, lines }) {
  const width = svg.clientWidth || 600;
  const height = svg.clientHeight || 300;
  const scale = (axis, start, end) => {
    const f = axis.logarithmic ? Math.log10 : (value) => value;
    const [low, high] = [f(axis.from), f(axis.to)];
    return (value) => start + (end - start) * (f(value) - low) / (high - low);
  };
  const across = scale(x, MARGIN.left, width - MARGIN.right);
  const up = scale(y, height - MARGIN.bottom, MARGIN.top);
  const parts = [];
  for (const value of ticks([x.from, x.to], x.logarithmic)) {
    const at = across(value);
    parts.push(drawn("line", { class: "grid", x1: at, x2: at, y1: MARGIN.top, y2: height - MARGIN.bottom }));
    parts.push(...written(brief(value), { x: at, y: height - MARGIN.bottom + 16, "text-anchor": "middle" }));
  }
  for (const value of ticks([y.from, y.to], y.logarithmic)) {
    const at = up(value);
    parts.push(drawn("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at }));
    parts.push(...written(brief(value), { x: MARGIN.left - 6, y: at + 4, "text-anchor": "end" }));
  }
  parts.push(...written(x.label, { x: across(x.to), y: height - 6, "text-anchor": "end", class: "label" }));
  parts.push(...written(y.label, { x: MARGIN.left, y: MARGIN.top - 10, class: "label" }));
  const inside = drawn("g", { "clip-path": `url(#${svg.id}-clip)` });
  for (const { points, style, dots } of lines) {
    const places = points
      .filter((point) => point.every(Number.isFinite))
      .map(([a, b]) => [across(a), up(b)].map((at) => Math.max(-1e5, Math.min(1e5, at))));
    const polyline = places.map((place) => place.map((at) => at.toFixed(2)).join()).join(" ");
    inside.append(drawn("polyline", { class: style, points: polyline }));
    if (dots) {
      for (const [cx, cy] of places) inside.append(drawn("circle", { class: style, cx, cy, r: 3 }));
    }
  }
  const clip = drawn("clipPath", { id: `${svg.id}-clip` }, drawn("rect", {
    x: MARGIN.left, y: MARGIN.top, width: width - MARGIN.left - MARGIN.right,
    height: height - MARGIN.top - MARGIN.bottom,
  }));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(clip, ...parts, inside);
}
