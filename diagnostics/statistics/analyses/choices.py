"""Which of several things has the largest number, and how surely: a leader and its differences.

What leads among several leads partly by chance, so its differences to the others come in bands that
hold together in 95 % of samples (`bootstrap.bands`). For trained masks, whose seeds count too:
`mask_answers`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from diagnostics.statistics.inference.bootstrap import DEFAULT, Bootstrap, Interval, bands, interval
from diagnostics.statistics.inference.estimators import Difference, Estimator, estimate
from diagnostics.statistics.inference.results import Result

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Choice(Result):
    """The largest of several numbers.

    Fields: `name`; `value` with its own interval; `over` the leader less each other one, by name,
    largest first, each interval a band over all of them.
    """

    name: str
    value: Interval
    over: Mapping[str, Interval]


def ranked(sizes: Mapping[K, float], competing: Iterable[K]) -> tuple[K, list[K]]:
    """The largest of those that compete, and all others, largest first; equal ones: as given."""
    best = max(competing, key=lambda name: sizes[name])
    return best, sorted((name for name in sizes if name != best), key=lambda name: -sizes[name])


def choose(
    numbers: Mapping[str, Estimator], bootstrap: Bootstrap = DEFAULT, *, beside: str = ""
) -> Choice:
    """The largest of one-number estimators over the same prompts; equal ones: the first given.

    The one called `beside` is compared with and does not compete.
    """
    sizes = {name: float(estimate(one)[0]) for name, one in numbers.items()}
    best, others = ranked(sizes, [name for name in sizes if name != beside])
    apart = [Difference(numbers[best], numbers[other]) for other in others]
    found = bands(apart, bootstrap) if apart else []
    return Choice(
        name=best,
        value=interval(numbers[best], bootstrap),
        over=dict(zip(others, found, strict=True)),
    )
