"""A leader and its differences, against draws written out and the largest deviation by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from diagnostics.statistics.analyses.choices import choose
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.inference.estimators import Mean

RNG = np.random.default_rng(5)
PROMPTS, DRAWS, EACH = 12, 400, 3.0
COUNTS = RNG.multinomial(PROMPTS, np.full(PROMPTS, 1 / PROMPTS), size=DRAWS).astype(float)
BOOTSTRAP = Bootstrap(draws=DRAWS, counts=COUNTS)
TOTALS = {
    "low": RNG.normal(1.0, 1.0, PROMPTS),
    "high": RNG.normal(3.0, 1.0, PROMPTS),
    "middle": RNG.normal(2.0, 1.0, PROMPTS),
    "random": RNG.normal(9.0, 1.0, PROMPTS),
}


def mean_of(totals: NDArray[np.float64]) -> Mean:
    """The mean over prompts of three positions each, with these sums."""
    return Mean(total=totals, count=np.full(PROMPTS, EACH))


NUMBERS = {name: mean_of(totals) for name, totals in TOTALS.items()}


def test_the_largest_leads_and_the_reference_does_not_compete() -> None:
    found = choose(NUMBERS, BOOTSTRAP, beside="random")
    assert found.name == "high"
    assert list(found.over) == ["random", "middle", "low"]
    assert choose(NUMBERS, BOOTSTRAP).name == "random"
    assert found.value.estimate == pytest.approx(TOTALS["high"].sum() / (PROMPTS * EACH))


def test_differences_have_bands_that_hold_together() -> None:
    """The band of each: its sd times the 95 % quantile of the largest deviation of any, in sd."""
    found = choose(NUMBERS, BOOTSTRAP, beside="random")
    drawn, values = [], []
    for other in found.over:
        apart = TOTALS["high"] - TOTALS[other]
        drawn.append((COUNTS @ apart) / (COUNTS.sum(axis=1) * EACH))
        values.append(apart.sum() / (PROMPTS * EACH))
    deviations = np.array(drawn).T - np.array(values)
    spread = np.array(drawn).std(axis=1, ddof=1)
    reach = np.quantile(np.abs(deviations / spread).max(axis=1), 0.95)
    for band, value, sd in zip(found.over.values(), values, spread, strict=True):
        assert band.estimate == pytest.approx(value, rel=1e-12)
        assert band.low == pytest.approx(value - reach * sd, rel=1e-9)
        assert band.high == pytest.approx(value + reach * sd, rel=1e-9)


def test_equal_numbers_go_to_the_first_given() -> None:
    same = {"b": NUMBERS["low"], "a": NUMBERS["low"]}
    assert choose(same, BOOTSTRAP).name == "b"


def test_one_alone_has_nothing_to_be_above() -> None:
    found = choose({"low": NUMBERS["low"]}, BOOTSTRAP)
    assert (found.name, dict(found.over)) == ("low", {})
