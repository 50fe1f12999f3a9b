"""Hidden states are those that predict each valid token, however the rollouts are batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from doubles import ROLLOUTS, slow_model
from hypothesis import given
from hypothesis import strategies as st

from diagnostics.models.files import open_model
from diagnostics.models.weights import load_weights
from diagnostics.scoring.hidden import (
    Context,
    hidden_states,
    length_buckets,
    one_by_one,
    prompt_buckets,
    shares_prompts,
)

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
    # longest first; a group more costs 2000 / 32 = 62.5 tokens, and cutting the five rows of 380 to
    # 400 saves 400 - 380 + 400 - 390 = 30 of padding at most
    lengths = [400, 900, 400, 890, 380, 390, 400]
    assert length_buckets(lengths, 2000) == [[1, 3], [0, 2, 6, 5, 4]]


def test_buckets_keep_rollouts_of_unlike_length_apart() -> None:
    # together 3 x 400 + 2 x 400 = 2000 + 62.5; apart 3 x 400 + 2 x 100 = 1400 + 2 x 62.5
    assert length_buckets([100, 400, 400, 100, 400], 2000) == [[1, 2, 4], [0, 3]]


def test_row_beyond_the_budget_is_a_group_of_its_own() -> None:
    assert length_buckets([50, 3, 60], 10) == [[2], [0], [1]]


SMALL = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2}
FAMILIES = [
    ("Qwen3", {"head_dim": 8}, True),
    ("Llama", {}, True),
    ("GPT2", GPT2, True),  # learned positions
    ("Bloom", {}, True),  # positions by distance
    ("Cohere", {}, True),
    ("Mistral", {"sliding_window": None}, True),
    ("Mistral", {"sliding_window": 4}, False),
    ("Gemma2", {"head_dim": 8, "sliding_window": 4}, False),
    ("Mamba", {}, False),  # no keys and values at all
]


def family(name: str, changes: dict[str, object]) -> torch.nn.Module:
    config = getattr(transformers, f"{name}Config")(**(SMALL | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def sampled(lengths: Sequence[int], samples: int = 3) -> list[Context]:
    """Several rollouts of each of some prompts, none alike."""
    rng = np.random.default_rng(0)
    contexts = []
    for length in lengths:
        prompt = rng.integers(3, 90, length)
        for _ in range(samples):
            size = int(rng.integers(1, 12))
            contexts.append(context(prompt, rng.integers(3, 90, size), rng.random(size) < 0.8))
    return contexts


class Fed:
    """Counts the tokens, padding included, that a model's body is fed."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.tokens = 0
        model.get_decoder().register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module: torch.nn.Module, args: object, options: dict[str, Any]) -> None:
        self.tokens += options["input_ids"].numel()


@pytest.mark.parametrize(("name", "changes", "shares"), FAMILIES)
@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.filterwarnings("ignore")
def test_shared_prompts_give_the_states_of_whole_rows(
    name: str, changes: dict[str, object], shares: bool, batch_tokens: int
) -> None:
    model, contexts = family(name, changes), sampled([5, 9, 1, 30])
    assert shares_prompts(model) is shares
    found = hidden_states(model, contexts, batch_tokens)
    with torch.no_grad():
        for one, states in zip(contexts, found, strict=True):
            row = torch.tensor([[*one.prompt.tolist(), *one.response.tolist()]])
            truth = model.get_decoder()(input_ids=row).last_hidden_state[0]
            window = truth[len(one.prompt) - 1 : -1][torch.from_numpy(one.valid)]
            assert torch.allclose(states, window, rtol=0, atol=BATCHING_TOLERANCE)


@pytest.mark.filterwarnings("ignore")
def test_a_shared_prompt_runs_once() -> None:
    model, contexts = family("Llama", {}), sampled([40, 40], samples=4)
    fed = Fed(model)
    hidden_states(model, contexts, 10_000)
    longest = max(len(one.response) for one in contexts)
    assert fed.tokens == 2 * 39 + 8 * longest  # whole rows would be 8 x (40 + longest - 1)


@pytest.mark.filterwarnings("ignore")
def test_prompts_of_one_rollout_run_in_one_row() -> None:
    model, contexts = family("Llama", {}), sampled([40, 20], samples=1)
    fed = Fed(model)
    hidden_states(model, contexts, 10_000)
    assert fed.tokens == 2 * max(one.length for one in contexts)


@pytest.mark.parametrize("spread", [0.3, 0.6], ids=["like", "unlike"])
def test_buckets_waste_little_on_padding(spread: float) -> None:
    """300 rollouts of 150 + about 192 tokens, parts of 50: the project states 12 % at most."""
    rng = np.random.default_rng(0)
    lengths = (150 + 192 * np.exp(spread * rng.normal(size=300))).astype(int)
    fed = useful = 0
    for start in range(0, 300, 50):
        part = lengths[start : start + 50].tolist()
        for group in length_buckets(part, 8192):
            fed += len(group) * max(part[index] for index in group)
            useful += sum(part[index] for index in group)
    assert fed / useful <= 1.12


@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 30), st.integers(1, 40)), max_size=8
    ),
    batch_tokens=st.integers(1, 300),
)
def test_prompt_buckets_hold_every_rollout_once_within_the_budget(
    sizes: list[tuple[int, int, int]], batch_tokens: int
) -> None:
    contexts, families = [], []
    for place, (samples, prompt, response) in enumerate(sizes):
        families.append(list(range(len(contexts), len(contexts) + samples)))
        one = context([place] * prompt, range(response), [True] * response)
        contexts += [one] * samples
    groups = prompt_buckets(contexts, families, batch_tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(contexts)))
    for group in groups:
        prompts = {contexts[i].prompt.tobytes(): len(contexts[i].prompt) for i in group}
        rows = len(group) * max(len(contexts[i].response) for i in group)
        fed = len(prompts) * max(prompts.values()) + rows
        assert len(group) == 1 or fed <= batch_tokens


@pytest.mark.filterwarnings("ignore")
def test_one_by_one_is_another_shape_of_the_same_states() -> None:
    model, contexts = family("Llama", {}), sampled([5, 9])
    for here, there in zip(
        one_by_one(model, contexts), hidden_states(model, contexts, 10_000), strict=True
    ):
        assert torch.allclose(here, there, rtol=0, atol=BATCHING_TOLERANCE)


@pytest.mark.filterwarnings("ignore")
def test_one_by_one_differs_from_a_batch_of_one_in_rounding() -> None:
    """Else the noise floor of a run that scores rollout by rollout would be nought by design."""
    model = family("Llama", {"hidden_size": 64}).bfloat16()
    contexts = sampled([30, 40, 50], samples=1)
    pairs = zip(one_by_one(model, contexts), hidden_states(model, contexts, 1), strict=True)
    assert any(not torch.equal(here, there) for here, there in pairs)
