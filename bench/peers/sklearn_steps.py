"""Steps of scikit-learn's MLPClassifier, taken by what `fit` and `partial_fit` take them by.

Its rows are floats, scaled beforehand. It is entered behind the checks of `partial_fit`, which would have two classes
be one output. Its Adam adds epsilon before the second moment is corrected, and not after.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from contest import Array, LeftOut, Problem, Weights, main
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import LabelBinarizer


class SklearnSteps:
    """A classifier, with the weights of the problem put into it."""

    def __init__(self, problem: Problem) -> None:
        if problem.batch_norm:
            raise LeftOut("scikit-learn has no batch normalization")
        self.sizes, self.dtype = problem.sizes, problem.dtype
        self.x = problem.typed_inputs(slice(None))
        self.t = np.eye(problem.sizes[-1], dtype=self.dtype)[problem.t]
        # Without momentum, SGD is plain; nothing is shuffled, since batches come in their order; it never stops early.
        self.classifier = classifier = MLPClassifier(
            problem.sizes[1:-1],
            solver=problem.optimizer,
            alpha=0.0,
            batch_size=problem.batch_size,
            learning_rate_init=problem.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            shuffle=False,
            tol=0.0,
            n_iter_no_change=10**9,
        )
        classifier._random_state = np.random.RandomState(0)
        classifier._label_binarizer = LabelBinarizer().fit(np.arange(problem.sizes[-1]))
        classifier._initialize(self.t, problem.sizes, np.dtype(self.dtype))
        classifier.out_activation_ = "softmax"
        for k, (w, b) in enumerate(problem.weights):
            classifier.coefs_[k][...], classifier.intercepts_[k][...] = w, b

    def take(self, batches: Array) -> None:
        """Take an epoch on the rows of these batches, gathered as its own shuffling would have."""
        rows = batches.ravel()
        x, t = self.x[rows], self.t[rows]
        layers = len(self.sizes) - 1
        weight_gradients = [np.empty(shape, self.dtype) for shape in pairwise(self.sizes)]
        bias_gradients = [np.empty(outputs, self.dtype) for outputs in self.sizes[1:]]
        activations, deltas = [x] + [None] * layers, [None] * layers
        self.classifier._fit_stochastic(
            x, t, None, activations, deltas, weight_gradients, bias_gradients, self.sizes, incremental=True
        )

    def weights(self) -> Weights:
        return [(w.copy(), b.copy()) for w, b in zip(self.classifier.coefs_, self.classifier.intercepts_, strict=True)]


if __name__ == "__main__":
    main({"fit": SklearnSteps})
