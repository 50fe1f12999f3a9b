"""Hidden states are those that predict each valid token, however the rollouts are batched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from doubles import ROLLOUTS, slow_model
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.models.files import open_model
from diagnostics.models.weights import load_weights
from diagnostics.scoring.hidden import Context, hidden_states, length_buckets

# a float32 net of two layers, states of size 1 to 5: padding changes the order of sums alone
BATCHING_TOLERANCE = 1e-5


def context(prompt: Sequence[int], response: Sequence[int], valid: Sequence[bool]) -> Context:
    return Context(
        prompt=np.asarray(prompt, np.int32),
        response=np.asarray(response, np.int32),
        valid=np.asarray(valid),
    )


CONTEXTS = [context(r.prompt_ids, r.response_ids, r.loss_mask) for r in ROLLOUTS]


@pytest.fixture(scope="module")
def loaded(teacher: str) -> torch.nn.Module:
    return load_weights(open_model(teacher), "float32", "cpu")


@torch.no_grad()
def test_state_of_a_position_is_that_of_its_prefix(loaded: torch.nn.Module, teacher: str) -> None:
    body = slow_model(teacher).get_decoder()
    for one, states in zip(CONTEXTS, hidden_states(loaded, CONTEXTS, 10_000), strict=True):
        places = np.flatnonzero(one.valid)
        assert states.shape == (len(places), 32)
        for state, t in zip(states, places, strict=True):
            prefix = torch.tensor([[*one.prompt.tolist(), *one.response[:t].tolist()]])
            truth = body(input_ids=prefix).last_hidden_state[0, -1]
            assert torch.allclose(state.double(), truth, rtol=0, atol=BATCHING_TOLERANCE)


@pytest.mark.parametrize("batch_tokens", [1, 7, 20, 33, 64])
def test_states_do_not_depend_on_batch_tokens(loaded: torch.nn.Module, batch_tokens: int) -> None:
    one = hidden_states(loaded, CONTEXTS, 10_000)
    other = hidden_states(loaded, CONTEXTS, batch_tokens)
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=BATCHING_TOLERANCE)


@pytest.mark.parametrize("order", [[6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 2, 5, 1, 4]])
def test_states_come_in_the_order_of_the_contexts(
    loaded: torch.nn.Module, order: list[int]
) -> None:
    straight = hidden_states(loaded, CONTEXTS, 24)
    shuffled = hidden_states(loaded, [CONTEXTS[i] for i in order], 24)
    for place, index in enumerate(order):
        assert torch.allclose(shuffled[place], straight[index], rtol=0, atol=BATCHING_TOLERANCE)


def test_progress_counts_every_context(loaded: torch.nn.Module) -> None:
    done: list[int] = []
    hidden_states(loaded, CONTEXTS, 24, done.append)
    assert sum(done) == len(CONTEXTS)
    assert len(done) > 1


def test_no_contexts_give_no_states(loaded: torch.nn.Module) -> None:
    assert hidden_states(loaded, [], 24) == []


@given(
    lengths=st.lists(st.integers(0, 40), max_size=30),
    batch_tokens=st.integers(1, 200),
)
def test_buckets_hold_every_index_once_within_the_budget(
    lengths: list[int], batch_tokens: int
) -> None:
    groups = length_buckets(lengths, batch_tokens)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[index] for index in group)
        assert len(group) == 1 or len(group) * longest <= batch_tokens


def test_buckets_fill_up_with_rollouts_of_like_length() -> None:
    # longest first; 20 tokens hold two rows of 9, then five of 4 or less
    assert length_buckets([4, 9, 4, 9, 1, 3, 4], 20) == [[1, 3], [0, 2, 6, 5, 4]]


def test_row_beyond_the_budget_is_a_group_of_its_own() -> None:
    assert length_buckets([50, 3, 60], 10) == [[2], [0], [1]]
