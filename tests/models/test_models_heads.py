"""A head gives its model's own logits, for every family that says what it does to them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from doubles import random_model
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from diagnostics.errors import InputError
from diagnostics.models.heads import Head, head_of, load_head, save_head
from diagnostics.models.weights import DTYPES, final_hidden

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
# family, changes of its configuration, scale and cap that its documentation states
FAMILIES = [
    ("Qwen3", {"head_dim": 8}, 1.0, None),
    ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 30.0}, 1.0, 30.0),
    ("Gemma2", {"head_dim": 8, "final_logit_softcapping": 7.5}, 1.0, 7.5),
    ("Gemma3Text", {"head_dim": 8}, 1.0, None),
    ("Granite", {"logits_scaling": 8.0}, 1 / 8, None),  # divides
    ("HyperCLOVAX", {"logits_scaling": 8.0}, 8.0, None),  # multiplies, by a name of the same sound
    ("Cohere", {"logit_scale": 0.0625}, 0.0625, None),
    ("FalconH1", {"lm_head_multiplier": 0.5}, 0.5, None),
    ("NanoChat", {"final_logit_softcapping": 15.0}, 1.0, 15.0),
    ("GPT2", GPT2, 1.0, None),
    ("GPTJ", GPT2 | {"rotary_dim": 4}, 1.0, None),  # a bias
    ("Phi", {}, 1.0, None),  # a bias
    ("Bloom", {}, 1.0, None),
    ("Mamba", {}, 1.0, None),
]


def model_of(family: str, changes: dict[str, Any]) -> PreTrainedModel:
    config = getattr(transformers, f"{family}Config")(**(SMALL | changes))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.get_output_embeddings().parameters():
            torch.nn.init.normal_(parameter, std=3.0)  # logits large enough for a cap to show
    return model


@torch.no_grad()
def own_and_ours(
    model: PreTrainedModel, head: Head, tokens: Sequence[int] = (3, 9, 27, 81, 5)
) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([tokens])
    seen = torch.ones_like(ids)
    own = model(input_ids=ids, attention_mask=seen).logits[0]
    return own, head.logits(final_hidden(model, ids, seen)[0])


@pytest.mark.parametrize(
    ("family", "changes", "scale", "cap"),
    FAMILIES,
    ids=[f"{f[0]}-{i}" for i, f in enumerate(FAMILIES)],
)
@pytest.mark.filterwarnings("ignore")
def test_head_gives_the_models_own_logits(
    family: str, changes: dict[str, Any], scale: float, cap: float | None
) -> None:
    model = model_of(family, changes)
    head = head_of(model, family)
    assert head.scale == pytest.approx(scale, rel=1e-6)
    assert head.softcap == cap
    own, ours = own_and_ours(model, head)
    # float32 products of size up to 50: some units of 1e-6
    assert torch.allclose(own, ours, rtol=0, atol=2e-5)
    assert float(own.std()) > 0.1


def test_a_family_without_transform_has_none() -> None:
    head = head_of(random_model(1), "m")
    assert (head.scale, head.softcap, head.bias) == (1.0, None, None)


class Odd(transformers.Qwen3ForCausalLM):
    """A family that does to its logits what no `Head` can say."""

    change: Any = None

    def forward(self, *args: Any, **options: Any) -> Any:
        output = super().forward(*args, **options)
        output.logits = self.change(output.logits)
        return output


def odd(change: Any) -> PreTrainedModel:
    model = Odd(random_model(1).config).eval()
    model.change = change
    return model


@pytest.mark.parametrize(
    "change",
    [lambda z: z.relu(), lambda z: z + 1.0, lambda z: z.sign() * z.abs().sqrt(), lambda z: z**3],
    ids=["relu", "shift", "root", "cube"],
)
def test_other_transforms_are_refused_by_name(change: Any) -> None:
    with pytest.raises(InputError) as caught:
        head_of(odd(change), "odd")
    assert str(caught.value) == (
        "odd: expected logits = cap(scale * (last hidden state @ head + bias)), got qwen3 with "
        "logits that are changed in some other way; choose another model; this family cannot be "
        "scored exactly"
    )


def test_a_head_that_is_fed_something_else_is_refused() -> None:
    model = random_model(1)
    model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 2.0,))
    with pytest.raises(InputError, match="a head that is fed something else than the last norm"):
        head_of(model, "m")


def test_rows_that_a_family_cuts_off_are_left_out() -> None:
    model = odd(lambda z: z[..., :50])
    head = head_of(model, "m")
    assert head.vocabulary == 50
    own, ours = own_and_ours(model, head, [3, 9, 27, 5])
    assert torch.allclose(own, ours, rtol=0, atol=2e-5)


def test_offloaded_weights_are_refused() -> None:
    model = random_model(1)
    model.lm_head.to("meta")
    with pytest.raises(InputError, match="a head whose weights were moved off the devices"):
        head_of(model, "m")


def test_logits_leave_the_product_in_float32() -> None:
    """Rounded to bfloat16, logits put errors of 2e-2 nats into KL (FIELD, numerical traps)."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 32, generator=generator).bfloat16()
    weight = torch.randn(11, 32, generator=generator).bfloat16()
    logits = Head(weight=weight).logits(hidden)
    assert logits.dtype == torch.float32
    # 32 float32 products of size 1 to 10: a few units of 1e-6
    assert torch.allclose(logits.double(), hidden.double() @ weight.double().T, rtol=0, atol=1e-5)


def full_head(dtype: str) -> Head:
    generator = torch.Generator().manual_seed(1)
    return Head(
        weight=torch.randn(11, 8, generator=generator).to(DTYPES[dtype]),
        bias=torch.randn(11, generator=generator).to(DTYPES[dtype]),
        scale=0.3,
        softcap=2.0,
    )


def test_rows_of_a_head_give_those_columns_of_its_logits() -> None:
    head, hidden = full_head("bfloat16"), torch.randn(3, 8)
    whole = head.logits(hidden)
    parts = [head.rows(first, min(first + 4, 11)).logits(hidden) for first in range(0, 11, 4)]
    assert torch.allclose(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-6)


def test_logits_may_be_written_into_a_buffer() -> None:
    head, hidden, buffer = full_head("float32"), torch.randn(3, 8), torch.empty(3, 11)
    assert torch.equal(head.logits(hidden, buffer), head.logits(hidden))
    assert torch.equal(buffer, head.logits(hidden))


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_saved_head_comes_back_bit_by_bit(dtype: str, tmp_path: Path) -> None:
    head = full_head(dtype)
    save_head(head, tmp_path / "head.safetensors")
    back = load_head(tmp_path / "head.safetensors", "cpu")
    assert torch.equal(back.weight, head.weight)
    assert back.bias is not None
    assert torch.equal(back.bias, head.bias)
    assert (back.scale, back.softcap, back.weight.dtype) == (0.3, 2.0, DTYPES[dtype])


def test_saved_head_without_bias_and_cap_comes_back_so(tmp_path: Path) -> None:
    save_head(Head(weight=torch.ones(2, 2)), tmp_path / "head.safetensors")
    back = load_head(tmp_path / "head.safetensors", "cpu")
    assert (back.bias, back.softcap, back.scale) == (None, None, 1.0)


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_damaged_head_is_refused_in_one_line(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_head(full_head("float32"), path)
    path.write_bytes(path.read_bytes()[:cut])
    said = re.escape(f"{path}: expected the teacher's output head, whole, got ")
    with pytest.raises(InputError, match=said) as caught:
        load_head(path, "cpu")
    assert "\n" not in str(caught.value)


def test_a_softcapped_heads_gradient_is_that_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, hidden = (torch.randn(5, 4, generator=generator).requires_grad_() for _ in range(2))
    found = Head(weight=weight, scale=2.0, softcap=3.0).logits(hidden)
    truth = 3.0 * torch.tanh(2.0 * (hidden @ weight.T) / 3.0)
    pull = torch.randn(found.shape, generator=generator)
    torch.testing.assert_close(found, truth)
    for own, other in zip(
        torch.autograd.grad((found * pull).sum(), [weight, hidden]),
        torch.autograd.grad((truth * pull).sum(), [weight, hidden]),
        strict=True,
    ):
        torch.testing.assert_close(own, other)
