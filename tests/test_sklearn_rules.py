"""Class weights, update rules and schedules of the estimators."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from estimators import NAMES, X_LABELS, Y_LABELS, X, Y, classifier, one_step, same, weights
from sklearn.base import clone

from xpnet import optim

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp`:DeprecationWarning"),  # old versions of scikit-learn
]


def drawn(**arguments):
    """Return the weights that a classifier begins with."""
    return weights(one_step(optim.SGD(1e-300), **arguments).fit(X, Y))


# Weights of classes


def test_class_weights_are_weights_of_rows():
    w = np.array([1.0, 2.0, 0.5])[Y]
    for y, of_class in ((Y, dict(enumerate([1.0, 2.0, 0.5]))), (NAMES, {"버시컬러": 2.0, "virginica": 0.5})):
        weighted = classifier(class_weight=of_class).fit(X, y)
        assert same(weighted, classifier().fit(X, y, sample_weight=w))
        assert not same(weighted, classifier().fit(X, y))
    both = classifier(class_weight={1: 2.0, 2: 0.5}).fit(X, Y, sample_weight=np.arange(150.0))
    assert same(both, classifier().fit(X, Y, sample_weight=np.arange(150.0) * w))
    part = classifier(class_weight={1: 2.0, 2: 0.5}).partial_fit(X, Y, classes=[0, 1, 2])
    assert same(part, classifier().partial_fit(X, Y, w, classes=[0, 1, 2]))


def test_balanced_classes():
    x, y = X[20:], Y[20:]  # 30, 50 and 50 rows
    w = np.array([130 / (3 * 30), 130 / (3 * 50), 130 / (3 * 50)])[y]
    assert same(classifier(class_weight="balanced").fit(x, y), classifier().fit(x, y, sample_weight=w))


def test_weights_of_several_labels():
    of_labels = [{0: 1.0, 1: 3.0}, {0: 2.0, 1: 1.0}, {0: 1.0, 1: 0.5}]
    w = np.prod([np.where(Y_LABELS[:, k] == 1, one[1], one[0]) for k, one in enumerate(of_labels)], axis=0)
    weighted = classifier(class_weight=of_labels).fit(X_LABELS, Y_LABELS)
    assert same(weighted, classifier().fit(X_LABELS, Y_LABELS, sample_weight=w))


@pytest.mark.parametrize("of_class", [{7: 1.0}, {0: -1.0, 1: 1.0}, [{0: 1.0}], {0: float("nan")}, "equal"])
def test_wrong_class_weights(of_class):
    with pytest.raises(ValueError, match="class"):
        classifier(class_weight=of_class).fit(X, Y)


def test_balanced_needs_all_rows():
    with pytest.raises(ValueError, match="balanced"):
        classifier(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


# Update rules and schedules


@pytest.mark.parametrize(
    ("rule", "arguments"),
    [
        ("sgd", {"solver": "sgd", "momentum": 0.0}),
        ("momentum", {"solver": "sgd", "momentum": 0.7, "nesterovs_momentum": False}),
        ("nesterov", {"solver": "sgd", "momentum": 0.7}),
        ("adam", {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-15}),
    ],
)
def test_rules_that_scikit_learn_has_too(rule, arguments):
    """At a constant rate they are the same to rounding, but for where Adam's epsilon stands."""
    arguments |= {"learning_rate_init": 0.02, "max_iter": 20, "batch_size": 40}
    ours, theirs = (classifier(optimizer=one, **arguments).fit(X, Y) for one in (rule, None))
    np.testing.assert_allclose(weights(ours), weights(theirs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("rule", "length"), [("adagrad", 1.0), ("rmsprop", 0.01**-0.5), ("adamw", 1.0)])
def test_first_step_of_the_other_rules(rule, length):
    """It is the learning rate, or a multiple of it, whatever the gradient; AdamW has shrunk the weights before."""
    before = drawn()
    after = weights(one_step(rule, learning_rate_init=0.01).fit(X, Y))
    if rule == "adamw":
        before[: 4 * 8 + 8 * 3] *= 1.0 - 0.01 * 0.01
    moved = np.abs(after - before)
    assert np.median(moved) == pytest.approx(0.01 * length, rel=1e-3)
    assert moved.max() < 0.01 * length * 1.001


def test_a_rule_with_settings_of_its_own():
    rule = optim.SGD(0.5, clip_norm=0.01)
    model = one_step(rule).fit(X, Y)
    assert np.linalg.norm(weights(model) - drawn()) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert not rule.bound  # the estimator took a copy
    assert same(model, clone(model).fit(X, Y))


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_schedules_by_name(name):
    steps = 6 * 4  # 6 epochs of 4 batches
    named, given = (
        classifier(schedule=one, max_iter=6, batch_size=40).fit(X, Y) for one in (name, optim.SCHEDULES[name](steps))
    )
    assert same(named, given)
    assert same(named, classifier(max_iter=6, batch_size=40).fit(X, Y)) == (name == "constant")


@pytest.mark.filterwarnings("ignore:the schedule gives a learning rate of 0")
def test_a_schedule_is_asked_for_every_step():
    asked = []

    def schedule(taken):
        asked.append(taken)
        return 1.0 if taken < 8 else 0.0

    model = classifier(schedule=schedule, max_iter=5, batch_size=40).fit(X, Y)
    assert asked == list(range(20))
    assert same(model, classifier(max_iter=2, batch_size=40).fit(X, Y))
