"""scikit-learn's multilayer perceptrons, trained by xpnet: change one import line.

>>> from sklearn.datasets import load_iris
>>> from xpnet.sklearn import MLPClassifier
>>> x, y = load_iris(return_X_y=True)
>>> MLPClassifier(max_iter=1000, random_state=0).fit(x, y).score(x, y) > 0.95
True

Constructors, attributes, warnings and errors are those of `sklearn.neural_network`, random numbers included: the same
`random_state` gives the same initial weights and shuffles, so that a fit in float64 is the same to rounding. New
arguments are at the end of the list. Needs the extra `sklearn`.
"""

try:
    import sklearn  # noqa: F401 (checked before modules that need it are imported)
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"xpnet.sklearn needs scikit-learn ({error}): pip install 'xpnet[sklearn]'", name=error.name
    ) from None

from .estimators import MLPClassifier, MLPRegressor
from .preparer import TablePreparer

__all__ = ["MLPClassifier", "MLPRegressor", "TablePreparer"]
