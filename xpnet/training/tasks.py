"""Names of pickles that earlier versions wrote; they are in `xpnet.model.tasks`."""

from ..model.tasks import Classification, Multilabel, Regression

__all__ = ["Classification", "Multilabel", "Regression"]
