"use strict";

// The network: layers in a row, forward for predictions and backward for gradients, of one picture at a time.
// I are input features and O output features; a vector of n numbers is written (n).

const sigmoid = (x) => 0.5 * (Math.tanh(0.5 * x) + 1);
const SELU_ALPHA = 1.6732632423543772;
const SELU_SCALE = 1.0507009873554805;
const GELU_RATE = Math.sqrt(2 / Math.PI);

/** Error function, by erf(u) = 2 / sqrt(pi) exp(-u^2) sum of 2^n u^(2n+1) / (1 3 5 ... (2n+1)). */
function erf(u) {
  if (Math.abs(u) > 6) return Math.sign(u); // beyond, 1 - |erf| is below rounding
  let term = u;
  let sum = u;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
    term *= (2 * u * u) / (2 * n + 1);
    sum += term;
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-u * u) * sum;
}

const normalCdf = (x) => 0.5 * (1 + erf(x * Math.SQRT1_2));
const normalDensity = (x) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
const geluTanh = (x) => Math.tanh(GELU_RATE * (x + 0.044715 * x ** 3));

/** Softmax of x (n), with its maximum taken off first, so that no exponential overflows. */
function softmax(x) {
  const highest = x.reduce((a, b) => Math.max(a, b));
  const e = x.map((value) => Math.exp(value - highest));
  const sum = e.reduce((a, b) => a + b);
  return e.map((value) => value / sum);
}

/** A layer of one function f(x, layer), whose derivative is df(x, y, layer) with y = f(x). */
function elementwise(f, df) {
  return {
    forward: (layer, x) => x.map((value) => f(value, layer)),
    backward: (layer, x, y, dy) => dy.map((value, i) => value * df(x[i], y[i], layer)),
  };
}

const unchanged = elementwise((x) => x, () => 1);

/** Mean of x (n). */
const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;

/** x (n) with mean 0 and variance 1, as `xHat`, and its `scale`, 1 / deviation. */
function normalized(layer, x) {
  const centre = mean(x);
  const scale = 1 / Math.sqrt(mean(x.map((value) => (value - centre) ** 2)) + layer.eps);
  return { scale, xHat: x.map((value) => (value - centre) * scale) };
}

/** Layers by their names: forward(layer, x) is y, and backward(layer, x, y, dy) is dx. */
const LAYERS = {
  Linear: {
    // y = x W + b, with W (I, O), a row for each input
    forward(layer, x) {
      const { W, b } = layer.arrays;
      const features = layer.out_features;
      const y = b ? Float64Array.from(b) : new Float64Array(features);
      x.forEach((value, i) => {
        if (value === 0) return; // most pixels are
        for (let o = 0; o < features; o++) y[o] += value * W[i * features + o];
      });
      return y;
    },
    // dx = dy W^T
    backward(layer, x, y, dy) {
      const { W } = layer.arrays;
      const features = layer.out_features;
      return x.map((_, i) => {
        let dx = 0;
        for (let o = 0; o < features; o++) dx += dy[o] * W[i * features + o];
        return dx;
      });
    },
  },

  // y = gamma (x - mean) / sqrt(variance + eps) + beta, by the running statistics
  BatchNorm: {
    forward(layer, x) {
      const { gamma, beta, running_mean, running_variance } = layer.arrays;
      return x.map((value, i) => {
        const xHat = (value - running_mean[i]) / Math.sqrt(running_variance[i] + layer.eps);
        return gamma[i] * xHat + beta[i];
      });
    },
    backward(layer, x, y, dy) {
      const { gamma, running_variance } = layer.arrays;
      return dy.map((value, i) => (value * gamma[i]) / Math.sqrt(running_variance[i] + layer.eps));
    },
  },

  // y = gamma (x - mean) / sqrt(variance + eps) + beta, by the row's own mean and variance
  LayerNorm: {
    forward(layer, x) {
      const { gamma, beta } = layer.arrays;
      return normalized(layer, x).xHat.map((value, i) => gamma[i] * value + beta[i]);
    },
    backward(layer, x, y, dy) {
      const { scale, xHat } = normalized(layer, x);
      const d = dy.map((value, i) => value * layer.arrays.gamma[i]);
      const along = mean(d.map((value, i) => value * xHat[i]));
      const level = mean(d);
      return d.map((value, i) => scale * (value - level - xHat[i] * along));
    },
  },

  Dropout: unchanged, // in predictions
  Identity: unchanged,
  Step: elementwise((x) => (Number.isNaN(x) ? x : Number(x > 0)), () => 0),
  Sigmoid: elementwise(sigmoid, (x, y) => y * (1 - y)),
  Tanh: elementwise(Math.tanh, (x, y) => 1 - y * y),
  ReLU: elementwise((x) => Math.max(x, 0), (x) => Number(x > 0)),
  LeakyReLU: elementwise(
    (x, layer) => (x > 0 ? x : layer.slope * x),
    (x, y, layer) => (x > 0 ? 1 : layer.slope),
  ),
  ELU: elementwise(
    (x, layer) => (x > 0 ? x : layer.alpha * Math.expm1(x)),
    (x, y, layer) => (x > 0 ? 1 : layer.alpha * Math.exp(x)),
  ),
  SELU: elementwise(
    (x) => SELU_SCALE * (x > 0 ? x : SELU_ALPHA * Math.expm1(x)),
    (x) => SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * Math.exp(x)),
  ),
  GELU: elementwise((x) => x * normalCdf(x), (x) => normalCdf(x) + x * normalDensity(x)),
  GELUTanh: elementwise(
    (x) => 0.5 * x * (1 + geluTanh(x)),
    (x) => {
      const t = geluTanh(x);
      return 0.5 * (1 + t + x * (1 - t * t) * GELU_RATE * (1 + 3 * 0.044715 * x * x));
    },
  ),
  Softplus: elementwise((x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))), sigmoid),
  Swish: elementwise(
    (x) => x * sigmoid(x),
    (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))),
  ),
  Softmax: {
    forward: (layer, x) => softmax(x),
    backward(layer, x, y, dy) {
      const along = dy.reduce((sum, value, i) => sum + value * y[i], 0);
      return dy.map((value, i) => y[i] * (value - along));
    },
  },
};

/** Predictions from the last layer's outputs, by the output activation of the loss. */
const OUTPUTS = {
  identity: (z) => z,
  softmax,
  sigmoid: (z) => z.map(sigmoid),
  exp: (z) => z.map(Math.exp),
  step: (z) => LAYERS.Step.forward(null, z),
};

/** Bytes of a text in base64. */
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Numbers of a text in base64, little-endian float32, as the processors of all browsers are. */
const floatsOf = (text) => new Float32Array(bytesOf(text).buffer);

/** A trained network, made from its description in the page. */
class Network {
  constructor(description) {
    Object.assign(this, description);
    this.layers = description.layers.map((layer) => {
      const arrays = Object.entries(layer.arrays).map(([name, text]) => [name, floatsOf(text)]);
      return { ...layer, ...LAYERS[layer.type], arrays: Object.fromEntries(arrays) };
    });
    this.groups = this.grouped();
  }

  /** Groups of layers, {first, last}: a Linear layer and all behind it, up to the next. */
  grouped() {
    const firsts = this.layers.flatMap((layer, i) => (i === 0 || layer.type === "Linear" ? [i] : []));
    return firsts.map((first, g) => ({ first, last: (firsts[g + 1] ?? this.layers.length) - 1 }));
  }

  /** Number of outputs of a group of layers. */
  widthOf(group) {
    const linear = this.layers.slice(0, group.last + 1).findLast((layer) => layer.type === "Linear");
    return linear ? linear.out_features : this.side ** 2;
  }

  /** Name of a group of layers: that of its activation, or else of its first layer. */
  kindOf(group) {
    const names = this.layers.slice(group.first, group.last + 1).map((layer) => layer.type);
    return names.findLast((name) => !["Linear", "BatchNorm", "LayerNorm", "Dropout"].includes(name)) ?? names[0];
  }

  /** The last layer of a group before its activation. */
  beforeActivation(group) {
    const weighted = ["Linear", "BatchNorm", "LayerNorm"];
    return Math.max(group.first, this.layers.slice(0, group.last + 1).findLastIndex(({ type }) => weighted.includes(type)));
  }

  /** Numbers of units: of the input, and of each group of layers. */
  sizes() {
    return [this.side ** 2, ...this.groups.map((group) => this.widthOf(group))];
  }

  /** Number of weights, biases, and scales and shifts of normalizations. */
  parameters() {
    const running = (name) => name.startsWith("running") || name === "batches";
    const arrays = this.layers.flatMap((layer) => Object.entries(layer.arrays));
    return arrays.reduce((sum, [name, array]) => sum + (running(name) ? 0 : array.length), 0);
  }

  /** Weights of a unit of a group, one for each input of the group's Linear layer; none without such a layer. */
  weights(group, unit) {
    const { type, arrays, in_features, out_features } = this.layers[group.first];
    if (type !== "Linear") return new Float64Array(this.side ** 2);
    return Float64Array.from({ length: in_features }, (_, i) => arrays.W[i * out_features + unit]);
  }

  /** Input of the first layer, (pixels - shift) / scale, for pixels (I) in the units of the training data. */
  scaled(pixels) {
    const of = (value, i) => (Array.isArray(value) ? value[i] : value);
    return Float64Array.from(pixels, (value, i) => (value - of(this.input_shift, i)) / of(this.input_scale, i));
  }

  /** The input x (I), and the output of each layer: values[i + 1] is that of layer i. */
  forward(x) {
    const values = [x];
    for (const layer of this.layers) values.push(layer.forward(layer, values.at(-1)));
    return values;
  }

  /** Gradient with respect to the input, (I), from `dy`, that with respect to the output of layer `last`. */
  backward(values, dy, last = this.layers.length - 1) {
    for (let i = last; i >= 0; i--) dy = this.layers[i].backward(this.layers[i], values[i], values[i + 1], dy);
    return dy;
  }

  /** Gradient x input, (I), of the output `index` of layer `last`: to first order, each pixel's share of it. */
  attributions(values, index, last = this.layers.length - 1) {
    const dy = new Float64Array(values[last + 1].length);
    dy[index] = 1;
    return this.backward(values, dy, last).map((gradient, i) => gradient * values[0][i]);
  }

  /** Probabilities of the classes or labels, or numbers in the targets' units, from the last layer's outputs. */
  output(z) {
    const p = OUTPUTS[this.output_activation](z);
    if (this.single) return Float64Array.of(1 - p[0], p[0]);
    return this.task === "regression" ? p.map((value, i) => value * this.target_scale[i] + this.target_shift[i]) : p;
  }

  /** Predictions for pixels (I) in the units of the training data. */
  predict(pixels) {
    return this.output(this.forward(this.scaled(pixels)).at(-1));
  }
}
