"""Names of pickles that earlier versions wrote; they are in `xpnet.model.mlp`."""

from ..model.mlp import MLP

__all__ = ["MLP"]
