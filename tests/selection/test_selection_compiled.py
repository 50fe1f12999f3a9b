"""`torch.compile` takes the whole selector as one graph, which keeps the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from selection_batches import batch, numbers, rounded

from diagnostics.selection import TokenSignals, select_tokens
from diagnostics.statistics.selection.selectors import SELECTORS

QUICK = ("teachability+entropy", "q3+low-dl", "q3-tip", "random")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check(selector: str, backend: str, one_per_row: bool) -> None:
    compiled = torch.compile(select_tokens, fullgraph=True, backend=backend)
    for seed, budget in enumerate((0.1, 0.1 + 0.2)):  # another budget is another graph
        signals, mask, rows = batch(rounded, seed)
        given = (selector, budget, signals, mask)
        options = {"rows": rows, "seed": seed, "one_per_row": one_per_row}
        truth = numbers(select_tokens(*given, **options), mask)
        assert numbers(compiled(*given, **options), mask) == truth


@pytest.mark.parametrize("selector", QUICK)
def test_one_graph_keeps_the_same(selector: str) -> None:
    check(selector, "eager", one_per_row=False)


@pytest.mark.slow
@pytest.mark.parametrize("selector", SELECTORS)
def test_one_graph_of_functions_keeps_the_same(selector: str) -> None:
    check(selector, "aot_eager", one_per_row=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch, of itself
def test_machine_code_keeps_the_same() -> None:
    check("teachability+entropy", "inductor", one_per_row=False)


def test_a_call_that_waits_for_the_device_is_no_part_of_one_graph() -> None:
    def waits(signals: TokenSignals, mask: torch.Tensor) -> bool:
        return select_tokens("kl", 0.1, signals, mask).empty

    signals, mask, _ = batch()
    with pytest.raises(torch._dynamo.exc.UserError, match=r"[Dd]ata-dependent"):
        torch.compile(waits, fullgraph=True, backend="eager")(signals, mask)
