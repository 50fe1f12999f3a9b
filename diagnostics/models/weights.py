"""Loads a model's weights, and takes it apart at the seam that scoring needs: body and head.

The body gives final hidden states (after the last norm); the head turns them into logits. Scoring
calls them apart, so that logits leave the matrix product in float32 and only for the positions that
are asked for. Model families that scale or cap their logits after the head are refused by name
until they are honoured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from diagnostics.errors import InputError
from diagnostics.models.files import WEIGHTS, ModelFiles

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
HEAD_KEYS = ("lm_head.weight", "model.embed_tokens.weight")  # the second where they are tied
LOGIT_TRANSFORMS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "logits_soft_cap")


def resolve_device(name: str) -> str:
    """`auto` as the first accelerator or the CPU. Raises InputError for one that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            where="--device",
            expected="a device of this machine",
            got=f"{name!r} ({str(error).splitlines()[0][:80]})",
            fix="use --device cpu",
        ) from error
    return name


def resolve_dtype(name: str, device: str) -> Dtype:
    """`auto` as bfloat16 on an accelerator and float32 on the CPU."""
    if name == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    for known in get_args(Dtype):
        if name == known:
            dtype: Dtype = known
            return dtype
    raise InputError(
        where="--dtype",
        expected=f"auto, {', '.join(DTYPES)}",
        got=repr(name),
        fix="choose one of them",
    )


def load_weights(files: ModelFiles, dtype: Dtype, device: str) -> PreTrainedModel:
    """The model in evaluation mode, from safetensors, without remote code.

    Raises InputError when weights are damaged or missing, or the family transforms its logits.
    """
    config = files.config.get_text_config()
    for name in LOGIT_TRANSFORMS:
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise InputError(
                where=files.spec,
                expected="logits that are the head's product alone",
                got=f"{config.model_type} with {name}={getattr(config, name)}",
                fix="choose another model; this family is not supported yet",
            )
    disable_progress_bar()  # the commands show bars of their own
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            files.folder, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # safetensors raises its own, torch RuntimeError, HF OSError
        raise InputError(
            where=files.spec,
            expected="whole safetensors weights that fit config.json",
            got=" ".join(str(error).split())[:200],
            fix="copy or save the model again",
        ) from error
    if report["missing_keys"]:
        raise InputError(
            where=files.spec,
            expected="weights for every parameter",
            got=f"none for {sorted(report['missing_keys'])[0]}",
            fix="copy or save the model again",
        )
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def load_head(files: ModelFiles, dtype: Dtype, device: str) -> Tensor:
    """The head's matrix (vocab, hidden) alone, read from the weights without loading the model.

    Raises InputError when the head has a bias or is not where supported families keep it.
    """
    index = {key: shard for shard in sorted(files.folder.glob(WEIGHTS)) for key in _keys(shard)}
    if "lm_head.bias" in index:
        raise InputError(
            where=files.spec,
            expected="an output head without bias",
            got="lm_head.bias",
            fix="choose another model; this family is not supported yet",
        )
    key = next((key for key in HEAD_KEYS if key in index), None)
    if key is None:
        raise InputError(
            where=files.spec,
            expected=f"the output head under {' or '.join(HEAD_KEYS)}",
            got=f"{len(index)} other tensors",
            fix="choose another model; this family is not supported yet",
        )
    with safe_open(index[key], framework="pt") as shard:
        weight: Tensor = shard.get_tensor(key)
    return weight.to(dtype=DTYPES[dtype], device=device)


def final_hidden(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states that the head would get, (batch, length, hidden), for ids (batch, length)."""
    body = model.get_decoder()
    output = body(input_ids=ids, attention_mask=attention_mask, use_cache=False)
    hidden: Tensor = output.last_hidden_state
    return hidden


def project(hidden: Tensor, weight: Tensor) -> Tensor:
    """Logits in float32, (pos, vocab), for hidden (pos, hidden) and weight (vocab, hidden).

    The product itself is taken in float32: logits rounded to bf16 put errors of 2e-2 nats into KL.
    """
    return hidden.float() @ weight.float().T


def _keys(shard: Path) -> list[str]:
    with safe_open(shard, framework="pt") as tensors:
        return list(tensors.keys())
