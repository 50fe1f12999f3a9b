"""Loads a model's weights, and runs its body up to the last hidden state.

The body gives final hidden states (after the last norm); `heads` turns them into logits. Scoring
calls them apart, so that logits leave the matrix product in float32 and only for the positions that
are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from diagnostics.errors import InputError
from diagnostics.models.files import ModelFiles

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_device(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """`auto` as an accelerator or the CPU, and `cuda` as this process's own of several.

    Of the processes that `torchrun` or `accelerate launch` started on a machine, number LOCAL_RANK
    takes that accelerator, and they take turns where there are fewer. Raises InputError for a
    device that is not there.
    """
    found = torch.cuda.is_available()
    if name == "auto" and not found:
        return "cpu"
    if name in ("auto", "cuda") and found:
        own = environ.get("LOCAL_RANK")
        return "cuda" if own is None else f"cuda:{int(own) % torch.cuda.device_count()}"
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


def final_hidden(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states that the head would get, (batch, length, hidden), for ids (batch, length)."""
    body = model.get_decoder()
    output = body(input_ids=ids, attention_mask=attention_mask, use_cache=False)
    hidden: Tensor = output.last_hidden_state
    return hidden
