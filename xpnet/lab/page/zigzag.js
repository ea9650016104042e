// Paths of five rules on x^2 / length + y^2, as in xpnet/lab/zigzag.py.
"use strict";

{
  const { start, shown, steps, near, rules: known } = data.zigzag;
  const form = document.getElementById("play-zigzag");
  // A rule that is chosen starts at the book's rate of it.
  form?.elements.rule.addEventListener("input", () => {
    const rates = JSON.parse(form.elements.rate.dataset.list);
    form.elements.rate.value = rates.indexOf(known[form.elements.rule.value].rate);
  });

  play("zigzag", ({ rule, rate, length }) => {
    const curvature = [2 / Number(length), 2];
    const path = descend(rule, start, (p) => p.map((x, i) => x * curvature[i]), rate, steps, known[rule]);
    const far = path.findLastIndex((p) => !(Math.max(...p.map(Math.abs)) <= near));
    return { path, arrival: far === steps ? null : far + 1 };
  }, ({ path, arrival, length }, form) => {
    const seen = path.slice(0, shown + 1);
    const contour = (level) => Array.from({ length: 91 }, (_, i) => {
      const angle = 2 * Math.PI * i / 90;
      return [Math.sqrt(level * Number(length)) * Math.cos(angle), Math.sqrt(level) * Math.sin(angle)];
    });
    draw(form.querySelector("#zigzag-path"), {
      x: { from: -9, to: 9, label: "x" },
      y: { from: -3.5, to: 3.5, label: "y" },
      lines: [
        ...[0.25, 1, 2, 4, 6.5, 9.5].map((level) => ({ points: contour(level), style: "faint" })),
        { points: seen, style: "path", dots: true },
        { points: [start], style: "start", dots: true },
        { points: [[0, 0]], style: "goal", dots: true },
      ],
    });
    tell(form, "steps", arrival === null ? "never" : "arrives");
    tell(form, "arrival", arrival === null ? "—" : arrival);
    tell(form, "crossings", seen.slice(1).filter(([, y], i) => Math.sign(y) !== Math.sign(seen[i][1])).length);
  });
}
