"use strict";

// The page: drawings go through the network, and each part of the page shows a part of it.

const QUIET = 600; // milliseconds without a change until the answer is read out
const FAINT_SEEN = 0.5; // power of the colours of reasons, which are a few strong pixels among many weak ones
const MOST_BARS = 12; // where there are more classes, the most probable ones are shown

const element = (id) => document.getElementById(id);
const content = JSON.parse(element("content").textContent);
const network = new Network(content.network);
const examples = content.examples ?? [];
const hidden = network.groups.slice(0, -1);
const lastGroup = network.groups.at(-1);

const pad = new Pad(element("pad"), () => refresh());
let palette = readPalette();
let chosenOutput = null; // the output whose pixels are shown; null for the answer's
let chosenUnit = null; // {group, unit}; null for the strongest of the first layer
let pending = 0; // a request for an animation frame
let announcement = 0; // a timer

/** Pixels that the network sees, (I), in the units of its training data; null where nothing is drawn. */
function pixelsSeen() {
  const { drawing } = pad;
  if (drawing.example !== undefined) return examples[drawing.example].pixels;
  if (drawing.empty) return null;
  return prepare(pad.ink(), network.side, network.digits)?.map((value) => value * network.white) ?? null;
}

/** Number of the most probable output; -1 where one is not finite. */
function best(p) {
  return p.every(Number.isFinite) ? p.indexOf(p.reduce((a, b) => Math.max(a, b))) : -1;
}

/** Name of an output: its class, its label, or its number. */
const nameOf = (index) => network.class_names[index] ?? words("output", { number: index + 1 });

/** The answer in words: the class, the labels above the threshold, or the numbers. */
function answerOf(p) {
  const top = best(p);
  if (top < 0) return words("noAnswer");
  if (network.task === "regression") return [...p].map(decimal).join(", ");
  if (network.task === "classification") return nameOf(top);
  return network.class_names.filter((_, i) => p[i] > 0.5).join(", ") || words("noLabel");
}

/** Gradient x input for an output, (I); two classes of one output pull it in opposite directions. */
function reasonsFor(values, output) {
  if (!network.single) return network.attributions(values, output);
  return network.attributions(values, 0).map((value) => (output === 0 ? -value : value));
}

/** Render at the next frame, and have the answer read out once the drawing rests. */
function refresh() {
  pending ||= requestAnimationFrame(() => {
    pending = 0;
    render();
  });
  clearTimeout(announcement);
  announcement = setTimeout(announce, QUIET);
}

function announce() {
  const pixels = pixelsSeen();
  const p = pixels && network.predict(pixels);
  const text = p === null ? "" : [answerOf(p), ...notesOn(p)].join(", ");
  if (element("spoken").textContent !== text) element("spoken").textContent = text; // or it would be read out again
}

/** Texts beside the answer: the probability of a class, and the correct answer for an example. */
function notesOn(p) {
  const [top, example] = [best(p), examples[pad.drawing.example]];
  const share = network.task === "classification" && top >= 0 ? [percent(p[top])] : [];
  return example ? [...share, words("truth", { truth: example.truth })] : share;
}

function render() {
  const pixels = pixelsSeen();
  const blank = pixels === null;
  const values = network.forward(network.scaled(pixels ?? new Float64Array(network.side ** 2)));
  const p = blank ? null : network.output(values.at(-1));
  pad.paint(palette, exampleCanvas());
  element("hint").hidden = !blank;
  element("undo").disabled = pad.drawing.marks.length === 0;
  element("clear").disabled = pad.drawing.empty;
  renderAnswer(p);
  renderSeen(pixels);
  renderReasons(values, p);
  renderLayers(values, blank);
  renderUnit(values, blank);
}

/** The example that is shown, in the pad's ink, or null. */
function exampleCanvas() {
  const { example } = pad.drawing;
  if (example === undefined) return null;
  const canvas = document.createElement("canvas");
  paintInk(canvas, examples[example].pixels);
  return canvas;
}

/** Paint pixels in the colour of ink, as dense as they are bright. */
function paintInk(canvas, pixels) {
  canvas.width = canvas.height = network.side;
  const image = new ImageData(network.side, network.side);
  pixels.forEach((value, i) => image.data.set([...palette.inkRgb, (255 * value) / network.white], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The answer and its bars

function renderAnswer(p) {
  element("answer").textContent = p === null ? "" : answerOf(p);
  element("answer").classList.toggle("long", element("answer").textContent.length > 2);
  element("share").textContent = p === null ? words("nothing") : notesOn(p).join(" · ");
  const bars = [...element("bars").children];
  const order = outputsShown(p, bars.length);
  bars.forEach((bar, place) => renderBar(bar, order[place], p));
}

/** Numbers of the outputs that have bars: all in order, or the highest ones. */
function outputsShown(p, count) {
  const all = network.class_names.length ? network.class_names.map((_, i) => i) : network.target_shift.map((_, i) => i);
  if (all.length > count && p !== null) all.sort((a, b) => p[b] - p[a]);
  return all.slice(0, count);
}

function renderBar(bar, output, p) {
  const [button] = bar.children;
  const [name, track, number] = button.children;
  const isNumber = network.task === "regression";
  const value = p === null ? 0 : p[output];
  bar.dataset.output = output;
  name.textContent = button.title = nameOf(output);
  track.hidden = isNumber;
  track.firstChild.style.width = `${100 * (Number.isFinite(value) ? value : 0)}%`;
  number.textContent = p === null ? "–" : Number.isFinite(value) ? (isNumber ? decimal : percent)(value) : "–";
  bar.classList.toggle("best", p !== null && !isNumber && output === best(p));
  button.setAttribute("aria-pressed", output === chosenOutput);
}

function makeBars() {
  const outputs = network.class_names.length || network.target_shift.length;
  for (let place = 0; place < Math.min(outputs, MOST_BARS); place++) {
    const track = make("span", "track", make("span", "fill"));
    const button = make("button", "", make("span", "name"), track, make("span", "number"));
    const bar = make("li", "bar", button);
    button.type = "button";
    button.addEventListener("click", () => chooseOutput(Number(bar.dataset.output)));
    element("bars").append(bar);
  }
  moveByArrows(element("bars"));
}

/** Show an output's weights and the pixels that speak for it; for the one that is shown, go back to the answer. */
function chooseOutput(output) {
  chosenOutput = chosenOutput === output ? null : output;
  chosenUnit = chosenOutput === null ? null : { group: lastGroup, unit: network.single ? 0 : output };
  refresh();
}

// Pictures

function renderSeen(pixels) {
  const shown = pixels ?? new Float64Array(network.side ** 2);
  paintPixels(element("seen"), shown, network.side, greys(palette, network.white));
  const example = examples[pad.drawing.example];
  const made = example ? "seenExample" : network.digits ? "seenDigit" : "seenPlain";
  const how = words(made, { side: network.side, truth: example?.truth });
  element("seen-how").textContent = how;
}

function renderReasons(values, p) {
  const output = chosenOutput ?? (p === null ? 0 : Math.max(best(p), 0));
  const name = p === null && chosenOutput === null ? "?" : nameOf(output);
  const shown = p === null ? new Float64Array(values[0].length) : reasonsFor(values, output);
  element("reasons-title").textContent = words("reasons", { name });
  paintPixels(element("reasons"), shown, network.side, signs(palette, shown, FAINT_SEEN));
}

/** The unit whose weights are shown: the chosen one, or the strongest of the first layer. */
function unitShown(values) {
  if (chosenUnit) return chosenUnit;
  const group = network.groups[0];
  return { group, unit: Math.max(best(values[group.last + 1].map(Math.abs)), 0) };
}

function renderUnit(values, blank) {
  const { group, unit } = unitShown(values);
  const isOutput = group === lastGroup;
  const name = network.single ? network.class_names[1] : nameOf(unit);
  const before = network.groups.indexOf(group);
  const places = { name, unit: unit + 1, layer: before + 1, before };
  element("weights-title").textContent = words(isOutput ? "weightsOfOutput" : "weights", places);
  element("weights-how").textContent = words(before === 0 ? "weightsOfPixels" : "weightsHow", places);
  const weights = network.weights(group, unit);
  const columns = before === 0 ? network.side : columnsOf(weights.length);
  paintPixels(element("weights"), weights, columns, signs(palette, weights));
  const last = network.beforeActivation(group); // behind it, a unit that is off has no reasons
  const reasons = blank ? new Float64Array(values[0].length) : network.attributions(values, unit, last);
  paintPixels(element("unit-reasons"), reasons, network.side, signs(palette, reasons, FAINT_SEEN));
  const value = blank ? "–" : decimal(values[group.last + 1][unit]);
  element("unit-value").textContent = words("value", { value });
}

// Layers

function makeLayers() {
  hidden.forEach((group) => {
    const count = network.widthOf(group);
    const canvas = unitCanvas(count, layerColumns(count), (unit) => {
      chosenUnit = { group, unit };
      chosenOutput = null;
      refresh();
    });
    const caption = make("figcaption", "", make("b", ""), make("span", ""));
    element("layers").append(make("figure", isWide(count) ? "wide" : "", canvas, caption));
  });
  element("layers-part").hidden = hidden.length === 0;
}

function renderLayers(values, blank) {
  const shown = unitShown(values);
  hidden.forEach((group, g) => {
    const [canvas, caption] = element("layers").children[g].children;
    const outputs = values[group.last + 1];
    const units = blank ? outputs.map(() => 0) : outputs;
    const chosen = shown.group === group ? shown.unit : undefined;
    paintCells(canvas, units, layerColumns(units.length), signs(palette, units), chosen, palette.ink);
    const unit = chosen ?? 0;
    const value = blank ? "–" : decimal(units[unit]);
    canvas.setAttribute("aria-label", words("layer", { layer: g + 1 }));
    canvas.setAttribute("aria-valuenow", unit + 1);
    canvas.setAttribute("aria-valuetext", words("unitIs", { unit: unit + 1, value }));
    caption.children[0].textContent = words("layer", { layer: g + 1 });
    caption.children[1].textContent = words("layerIs", { units: units.length, kind: network.kindOf(group) });
  });
}

// Examples

function makeExamples() {
  for (const [i, example] of examples.entries()) {
    example.pixels = Float64Array.from(bytesOf(example.bytes), (byte) => byte * content.unit);
    const canvas = make("canvas", "");
    const button = make("button", "example", canvas);
    button.type = "button";
    button.addEventListener("click", () => {
      chosenOutput = null;
      pad.show(i);
    });
    element(example.right ? "right" : "wrong").append(button);
  }
  element("examples").hidden = examples.length === 0;
  for (const id of ["right", "wrong"]) {
    element(`${id}-part`).hidden = element(id).children.length === 0;
    element(`${id}-part`).firstChild.hidden = network.task === "regression"; // numbers are neither
    if (element(id).children.length) moveByArrows(element(id));
  }
}

function renderExamples() {
  const places = { right: 0, wrong: 0 };
  for (const example of examples) {
    const id = example.right ? "right" : "wrong";
    const button = element(id).children[places[id]++];
    paintInk(button.firstChild, example.pixels);
    button.title = words("exampleIs", { truth: example.truth });
    button.setAttribute("aria-label", button.title);
  }
}

// The page as a whole

/** Show all texts in the page's language, and all pictures in the colours of its theme. */
function renderAll() {
  palette = readPalette();
  translate();
  const whole = (value) => formatted(value);
  const about = [words("about", { sizes: network.sizes().join("–"), parameters: whole(network.parameters()) })];
  if (content.test) {
    const { right, rows } = content.test;
    about.push(words("aboutTest", { right: whole(right), rows: whole(rows), share: percent(right / rows) }));
  }
  element("about").textContent = about.join(" ");
  renderExamples();
  render();
}

makeBars();
makeLayers();
makeExamples();
element("undo").addEventListener("click", () => pad.undo());
element("clear").addEventListener("click", () => pad.clear());
element("language").addEventListener("click", () => {
  language = language === "ko" ? "en" : "ko";
  renderAll();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
  pad.undo();
  event.preventDefault();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renderAll);
renderAll();
