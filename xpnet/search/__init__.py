"""Search: training of many networks at once, as replicas of one program, on as many machines as there are."""

from .groups import Outcome, groups_of, train_together
from .search import Results, search
from .space import Space

__all__ = ["Outcome", "Results", "Space", "groups_of", "search", "train_together"]
