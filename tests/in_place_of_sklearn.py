"""A plugin for pytest: `sklearn.neural_network` has xpnet's estimators in place of its own."""

from sklearn import neural_network

from xpnet.sklearn import MLPClassifier, MLPRegressor

for estimator in (MLPClassifier, MLPRegressor):
    setattr(neural_network, estimator.__name__, estimator)
    estimator._optimizer = property(lambda self: self._fitting.optimizer)  # scikit-learn's tests read its rate
