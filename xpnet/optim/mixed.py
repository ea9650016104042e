"""Several update rules in one step: each has some replicas of a network, which are rows of the flat vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.checks import check_int, elements, shown
from ..core.device import Array
from ..nn import Sequential
from .optimizers import OPTIMIZERS, Optimizer, State, type_name


class Mixed(Optimizer):
    """Update rules for the replicas of one network: the first replicas have the first rule, and so on.

    >>> from xpnet import SGD, Adam
    >>> Mixed([(Adam(0.01), 2), (SGD([0.1, 0.2, 0.3]), 3)]).learning_rate
    (0.01, 0.01, 0.1, 0.2, 0.3)

    Args:
        rules: pairs of a rule and the number of its replicas. Rates and decays of a rule are numbers, or sequences with
            one for each of its replicas.
    """

    def __init__(self, rules: Sequence[tuple[Optimizer, int]]) -> None:
        pairs = [elements(pair) or [] for pair in elements(rules) or []]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise TypeError(f"rules must be pairs of an Optimizer and a number of replicas, not {shown(rules)}")
        self.rules = [(rule, check_int("the replicas of a rule", count)) for rule, count in pairs]
        for place, (rule, _) in enumerate(self.rules):
            used = any(rule is other for other, _ in self.rules[:place])
            if not isinstance(rule, Optimizer) or isinstance(rule, Mixed) or rule.bound or used:
                raise TypeError(f"rules must be new Optimizers with numbers of replicas, not {shown(rule)}")
        self.replicas = sum(count for _, count in self.rules)
        ends = [sum(count for _, count in self.rules[: k + 1]) for k in range(len(self.rules))]
        self.spans = [slice(end - count, end) for end, (_, count) in zip(ends, self.rules, strict=True)]
        # Rules may share an array: each has its own rows of it.
        self.state_names = tuple(dict.fromkeys(name for rule, _ in self.rules for name in rule.state_names))
        self.state: State = {}

    @property
    def learning_rate(self) -> tuple[float, ...]:  # type: ignore[override]
        """Learning rate of each replica."""
        return tuple(rate for rule, count in self.rules for rate in _each(rule.learning_rate, count))

    def bind(self, network: Sequential) -> None:
        """Allocate the state of all rules."""
        if network.replicas != self.replicas:
            raise ValueError(f"the rules have {self.replicas} replicas, and the network {network.replicas}")
        for rule, count in self.rules:
            for name in ("learning_rate", "weight_decay", "l1"):
                _each(getattr(rule, name), count)
            rule.bound, rule.decayed = True, network.layout.decayed
        self.bound, self.decayed = True, network.layout.decayed
        self.state = {name: network.device.zeros(network.values.shape, network.dtype) for name in self.state_names}

    def settings(self) -> dict[str, Any]:
        """The rules and their numbers of replicas."""
        return {"rules": self.rules}

    def description(self) -> dict[str, Any]:
        """The rules' descriptions, as JSON values."""
        return {"type": "Mixed", "settings": [[rule.description(), count] for rule, count in self.rules]}

    def step_table(self, t: Any) -> dict[str, Any]:
        """Per-step numbers of all rules, each with the number of its rule, for all replicas."""
        table: dict[str, Any] = {"learning_rate": self.learning_rate}
        for number, ((rule, _), span) in enumerate(zip(self.rules, self.spans, strict=True)):
            for name, value in rule.step_table(t).items():
                if name != "learning_rate":
                    table[f"{number} {name}"] = self._for_all(value, span)
        return table

    def step(self, xp: Any, p: Array, g: Array, state: State, scalars: State) -> None:
        """Let each rule take a step with its replicas."""
        for number, ((rule, _), span) in enumerate(zip(self.rules, self.spans, strict=True)):
            start = f"{number} "
            own = {name.removeprefix(start): one[span] for name, one in scalars.items() if name.startswith(start)}
            own["learning_rate"] = scalars["learning_rate"][span]
            rule.step(xp, p[span], g[span], {name: state[name][span] for name in rule.state_names}, own)

    def _for_all(self, value: Any, span: slice) -> Any:
        """A rule's numbers, one for each of its replicas, among zeros for the others."""
        if not isinstance(value, tuple):
            return value
        return (0.0,) * span.start + value + (0.0,) * (self.replicas - span.stop)


def _each(value: Any, count: int) -> tuple[float, ...]:
    """A number for each of `count` replicas."""
    if not isinstance(value, tuple):
        return (value,) * count
    if len(value) != count:
        raise ValueError(f"a rule has {len(value)} numbers, and {count} replicas")
    return value


def optimizer_of(description: Mapping[str, Any], own: Iterable[type[Optimizer]] = ()) -> Optimizer:
    """Make the rule, or the rules, that a description is of; `own` are classes besides xpnet's."""
    name, settings = description["type"], description["settings"]
    if name == "Mixed":
        return Mixed([(optimizer_of(rule, own), count) for rule, count in settings])
    known = {type_name(one): one for one in (*OPTIMIZERS.values(), *own)}
    if name not in known:
        raise ValueError(f"its optimizer {name!r} is none of xpnet's: give load its class, optimizers=[...]")
    return known[name](**settings)
