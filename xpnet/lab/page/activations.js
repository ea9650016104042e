// Activations and their slopes, as in xpnet/nn/activations.py: each gives [y, dy/dx] at x.
"use strict";

const sigmoid = (x) => 0.5 * (Math.tanh(0.5 * x) + 1);
const polynomial = (coefficients, x) => coefficients.reduce((value, coefficient) => value * x + coefficient);

// The normal distribution function, by Cody's approximations of erf and erfc.
function normalCdf(x) {
  const { ERF_P, ERF_Q, ERFC_P, ERFC_Q } = data.activations.cody;
  const u = x * Math.sqrt(0.5);
  const a = Math.abs(u);
  if (a <= 0.46875) return 0.5 + 0.5 * u * polynomial(ERF_P, a * a) / polynomial(ERF_Q, a * a);
  const far = Math.min(a, 6);
  const tail = 0.5 * Math.exp(-a * a) * polynomial(ERFC_P, far) / polynomial(ERFC_Q, far);
  return u < 0 ? tail : 1 - tail;
}

const activations = {
  identity: (x) => [x, 1],
  step: (x) => [x > 0 ? 1 : 0, 0],
  sigmoid(x) {
    const y = sigmoid(x);
    return [y, y * (1 - y)];
  },
  tanh(x) {
    const y = Math.tanh(x);
    return [y, 1 - y * y];
  },
  relu: (x) => [Math.max(x, 0), x > 0 ? 1 : 0],
  "leaky-relu": (x, c) => (x > 0 ? [x, 1] : [c.slope * x, c.slope]),
  elu: (x, c) => (x > 0 ? [x, 1] : [c.alpha * Math.expm1(x), c.alpha * Math.exp(x)]),
  selu: (x, c) => (x > 0 ? [c.scale * x, c.scale]
    : [c.scale * c.alpha * Math.expm1(x), c.scale * c.alpha * Math.exp(x)]),
  gelu(x) {
    const phi = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
    return [x * normalCdf(x), normalCdf(x) + x * phi];
  },
  "gelu-tanh"(x) {
    const rate = Math.sqrt(2 / Math.PI);
    const t = Math.tanh(rate * (x + 0.044715 * x ** 3));
    return [0.5 * x * (1 + t), 0.5 * (1 + t + x * (1 - t * t) * rate * (1 + 3 * 0.044715 * x * x))];
  },
  softplus: (x) => [Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), sigmoid(x)],
  swish(x) {
    const s = sigmoid(x);
    return [x * s, s * (1 + x * (1 - s))];
  },
  softmax(x) { // the first of the two probabilities of (x, 0)
    const largest = Math.max(x, 0);
    const y = Math.exp(x - largest) / (Math.exp(x - largest) + Math.exp(-largest));
    return [y, y * (1 - y)];
  },
};

play("activations", ({ kind, input }) => {
  const [y, slope] = activations[kind](input, data.activations.constants[kind]);
  return { y, slope };
}, ({ kind, input, y, slope }, form) => {
  const points = Array.from({ length: 321 }, (_, i) => i / 40 - 4);
  const values = points.map((x) => activations[kind](x, data.activations.constants[kind]));
  draw(form.querySelector("#activations-curve"), {
    x: { from: -4, to: 4, label: "x" },
    y: { from: -2.2, to: 2.2, label: ["y, and its slope", "y와 그 기울기"] },
    lines: [
      { points: [-4, 4].map((x) => [x, y + slope * (x - input)]), style: "faint" },
      { points: points.map((x, i) => [x, values[i][1]]), style: "slope" },
      { points: points.map((x, i) => [x, values[i][0]]), style: "curve" },
      { points: [[input, slope]], style: "slope", dots: true },
      { points: [[input, y]], style: "curve", dots: true },
    ],
  });
  tell(form, "y", y);
  tell(form, "slope", slope);
});
