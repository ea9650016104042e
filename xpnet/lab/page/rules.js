// Update rules, a formula each: those of xpnet/optim/optimizers.py, with its constants.
//   p: parameters, changed; g: their gradient; s: state, which keeps v and m between steps; c: constants; t: 1, 2, ...
"use strict";

const zeros = (p) => p.map(() => 0);

const rules = {
  SGD(p, g, s, rate) {
    p.forEach((_, i) => { p[i] -= rate * g[i]; });
  },
  Momentum(p, g, s, rate, c) {
    s.v ??= zeros(p);
    p.forEach((_, i) => {
      s.v[i] = c.momentum * s.v[i] + g[i];
      p[i] -= rate * s.v[i];
    });
  },
  AdaGrad(p, g, s, rate, c) {
    s.v ??= zeros(p);
    p.forEach((_, i) => {
      s.v[i] += g[i] * g[i];
      p[i] -= rate * g[i] / (Math.sqrt(s.v[i]) + c.epsilon);
    });
  },
  RMSprop(p, g, s, rate, c) {
    s.v ??= zeros(p);
    p.forEach((_, i) => {
      s.v[i] = c.alpha * s.v[i] + (1 - c.alpha) * g[i] * g[i];
      p[i] -= rate * g[i] / (Math.sqrt(s.v[i]) + c.epsilon);
    });
  },
  Adam(p, g, s, rate, c, t) {
    s.m ??= zeros(p);
    s.v ??= zeros(p);
    p.forEach((_, i) => {
      s.m[i] = c.beta1 * s.m[i] + (1 - c.beta1) * g[i];
      s.v[i] = c.beta2 * s.v[i] + (1 - c.beta2) * g[i] * g[i];
      const m = s.m[i] / (1 - c.beta1 ** t);
      const v = s.v[i] / (1 - c.beta2 ** t);
      p[i] -= rate * m / (Math.sqrt(v) + c.epsilon);
    });
  },
};

// The path of a rule from a start: the points before and after each step.
function descend(rule, start, gradient, rate, steps, constants = {}) {
  const p = [...start];
  const path = [[...p]];
  const state = {};
  for (let t = 1; t <= steps; t++) {
    rules[rule](p, gradient(p), state, rate, constants, t);
    path.push([...p]);
  }
  return path;
}
