// Descent on x^2, as in xpnet/lab/descent.py.
"use strict";

play("descent", ({ rate, start, steps }) => {
  const path = descend("SGD", [start], ([x]) => [2 * x], rate, steps).map(([x]) => x);
  return { path, end: path.at(-1), value: path.at(-1) ** 2 };
}, ({ path, end, value, rate, start, steps }, form) => {
  const reach = 1.1 * Math.max(4.5, ...path.map(Math.abs).filter(Number.isFinite));
  const curve = Array.from({ length: 121 }, (_, i) => reach * (i / 60 - 1));
  draw(form.querySelector("#descent-curve"), {
    x: { from: -reach, to: reach, label: "x" },
    y: { from: 0, to: reach ** 2, label: "x²" },
    lines: [
      { points: curve.map((x) => [x, x * x]), style: "faint" },
      { points: path.map((x) => [x, x * x]), style: "path", dots: true },
      { points: [[start, start * start]], style: "start", dots: true },
    ],
  });
  const distances = path.map((x, step) => [step, Math.max(Math.abs(x), 1e-12)]);
  const sizes = distances.map(([, size]) => size);
  draw(form.querySelector("#descent-distance"), {
    x: { from: 0, to: steps, label: ["step", "갱신 횟수"] },
    y: { from: Math.min(...sizes, 1) / 2, to: 2 * Math.max(...sizes, 1), label: "|x|", logarithmic: true },
    lines: [{ points: distances, style: "path", dots: steps <= 30 }],
  });
  tell(form, "end", end);
  tell(form, "value", value);
  tell(form, "factor", 1 - 2 * rate);
  const factor = Math.abs(1 - 2 * rate);
  tell(form, "way", rate > 1 ? "diverges" : factor === 1 ? "stands" : rate > 0.5 ? "jumps" : "creeps");
});
