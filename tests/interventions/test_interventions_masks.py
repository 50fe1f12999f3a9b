"""Which masks an experiment trains."""

from __future__ import annotations

import pytest

from diagnostics.errors import InputError
from diagnostics.interventions.masks import FULL, SETS, ArmPlan, arms, named_set, product


def test_tables_of_the_paper_are_its_selectors_and_budgets() -> None:
    # Table 2: ten selectors at 3 and 5 %; Table 7: three; Table 10: nine rows
    assert len(SETS["table2"]) == 20
    assert {budget for _, budget in SETS["table2"]} == {0.03, 0.05}
    assert [name for name, _ in SETS["table7"]] == ["q3+high-dl", "q3+low-dl", "q3+high-di"]
    assert [b for name, b in SETS["table10"] if name == "teachability"] == [0.01, 0.03, 0.05, 0.1]
    assert len(SETS["table10"]) == 9
    # teachability at 1 and 10 %, Q3+high-C at 1 %, and Table 7's three are not in Table 2
    assert len(SETS["paper"]) == 26


def test_full_stands_in_every_set_once_a_seed_and_seeds_are_whole() -> None:
    found = arms(product(["kl", "full"], [0.05, 0.1]), range(2))
    assert [(a.selector, a.budget, a.seed) for a in found] == [
        ("full", 1.0, 0), ("kl", 0.05, 0), ("kl", 0.1, 0),
        ("full", 1.0, 1), ("kl", 0.05, 1), ("kl", 0.1, 1),
    ]  # fmt: skip
    assert product(["full"], []) == (FULL,)


@pytest.mark.parametrize(
    ("selector", "budget", "name"),
    [
        ("teachability", 0.05, "teachability-5-s2"),
        ("q3+high-dl", 0.004, "q3_high-dl-0p4-s2"),
        ("full", 1.0, "full-100-s2"),
        ("random", 0.0335, "random-3p35-s2"),
    ],
)
def test_names_are_files_and_say_what_is_trained(selector: str, budget: float, name: str) -> None:
    assert ArmPlan(selector=selector, budget=budget, seed=2).name == name


@pytest.mark.parametrize(
    ("selectors", "budgets", "said"),
    [
        (["best"], [0.1], "--selector: expected one of teachability"),
        (["kl"], [5.0], "--budget: expected a share of positions in (0, 1], got 5.0"),
        (["kl"], [], "--selector and --budget: expected at least one of each, got 1 selectors, 0 "),
        ([], [0.1], "--selector and --budget: expected at least one of each, got 0 selectors, 1 "),
    ],
)
def test_bad_masks_are_refused(selectors: list[str], budgets: list[float], said: str) -> None:
    with pytest.raises(InputError) as caught:
        product(selectors, budgets)
    assert str(caught.value).startswith(said)


def test_unknown_set_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        named_set("table3")
    assert str(caught.value) == (
        "--set: expected one of table2, table7, table10, paper, got 'table3'; choose one of them, "
        "or give --selector and --budget"
    )
