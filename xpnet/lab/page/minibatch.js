// Training of a small network on mini-batches, as in xpnet/lab/minibatch.py: the same rows, first weights and order.
"use strict";

{
  const { x, y, weights, orders, looks } = data.minibatch;

  // One hidden layer of tanh units, and softmax. W1 (2, H), b1 (H), W2 (H, 2), b2 (2).
  function forward([W1, b1, W2, b2], row) {
    const a = b1.map((b, j) => Math.tanh(row[0] * W1[0][j] + row[1] * W1[1][j] + b));
    const z = b2.map((b, k) => a.reduce((sum, value, j) => sum + value * W2[j][k], 0) + b);
    const largest = Math.max(...z);
    const e = z.map((value) => Math.exp(value - largest));
    const total = e[0] + e[1];
    return { a, p: e.map((value) => value / total), logTotal: largest + Math.log(total), z };
  }

  function meanLoss(parameters) {
    return x.reduce((sum, row, n) => {
      const { logTotal, z } = forward(parameters, row);
      return sum + logTotal - z[y[n]];
    }, 0) / x.length;
  }

  // One step of SGD on the rows of a batch.
  function step(parameters, rows, rate) {
    const gradients = parameters.map((array) => array.map((one) => Array.isArray(one) ? one.map(() => 0) : 0));
    const [W2, [dW1, db1, dW2, db2]] = [parameters[2], gradients];
    for (const n of rows) {
      const { a, p } = forward(parameters, x[n]);
      const dz2 = p.map((value, k) => (value - (k === y[n] ? 1 : 0)) / rows.length);
      dz2.forEach((d, k) => { db2[k] += d; });
      a.forEach((value, j) => {
        dz2.forEach((d, k) => { dW2[j][k] += value * d; });
        const dz1 = (dz2[0] * W2[j][0] + dz2[1] * W2[j][1]) * (1 - value * value);
        db1[j] += dz1;
        dW1[0][j] += x[n][0] * dz1;
        dW1[1][j] += x[n][1] * dz1;
      });
    }
    parameters.forEach((array, i) => array.forEach((one, j) => {
      if (Array.isArray(one)) one.forEach((_, k) => { one[k] -= rate * gradients[i][j][k]; });
      else array[j] -= rate * gradients[i][j];
    }));
  }

  // The loss on all rows after some of the steps: [step, loss].
  function train(batch, rate) {
    const parameters = structuredClone(weights);
    const batches = orders.flatMap((order) =>
      Array.from({ length: Math.ceil(order.length / batch) }, (_, i) => order.slice(batch * i, batch * (i + 1))));
    const wanted = new Set(Array.from({ length: looks }, (_, i) => Math.floor(batches.length ** (i / (looks - 1)))));
    wanted.add(batches.length);
    const curve = [[0, meanLoss(parameters)]];
    batches.forEach((rows, i) => {
      step(parameters, rows, rate);
      if (wanted.has(i + 1)) curve.push([i + 1, meanLoss(parameters)]);
    });
    return curve;
  }

  const rows = orders.length * x.length;
  const known = new Map(); // curves to compare with, by rate
  function compared(rate) {
    if (!known.has(rate)) known.set(rate, data.minibatch.compared.map((batch) => [batch, train(batch, rate)]));
    return known.get(rate);
  }

  play("minibatch", ({ batch, rate }) => {
    const curve = train(batch, rate);
    return { curve, steps: curve.at(-1)[0], loss: curve.at(-1)[1], others: compared(rate) };
  }, ({ batch, curve, steps, loss, others }, form) => {
    const all = [[batch, curve], ...others];
    const top = 1.05 * Math.max(...all.flatMap(([, one]) => one.map(([, value]) => value)).filter(Number.isFinite));
    for (const [id, factor, label] of [
      ["minibatch-steps", () => 1, ["steps", "갱신 횟수"]], ["minibatch-rows", (size) => size, ["rows seen", "사용한 데이터 수"]],
    ]) {
      const places = ([size, one], style) => ({ points: one.slice(1).map(([n, value]) => [n * factor(size), value]), style });
      draw(form.querySelector(`#${id}`), {
        x: { from: 1, to: rows, label, logarithmic: true },
        y: { from: 0, to: Math.min(top, 2), label: ["loss on all rows", "전체 데이터의 손실"] },
        lines: [...others.map((one, i) => places(one, `other other-${i}`)), places([batch, curve], "path")],
      });
    }
    tell(form, "steps", steps);
    tell(form, "loss", loss);
  });
}
