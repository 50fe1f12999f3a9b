"""Loads a model's weights, and runs its body up to the last hidden state.

The body gives final hidden states (after the last norm); `heads` turns them into logits. Scoring
calls them apart, so that logits leave the matrix product in float32 and only for the positions that
are asked for.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, Self, get_args

import torch
import transformers
import transformers.modeling_gguf_pytorch_utils as gguf_loader
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import (
    disable_progress_bar,
    get_verbosity,
    set_verbosity,
    set_verbosity_error,
)

from diagnostics.errors import InputError, require_packages
from diagnostics.models.adapters import attach
from diagnostics.models.files import ModelFiles

Dtype = Literal["float32", "bfloat16", "float16"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


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


def load_weights(
    files: ModelFiles, dtype: Dtype, device: str, device_map: str | None = None
) -> PreTrainedModel:
    """The model in evaluation mode, its adapter hung in, without pickles or remote code.

    A GGUF file is unpacked into `dtype`; quantised folders keep their own form, `dtype` being that
    of the rest. With a `device_map` ("auto", "balanced", …) accelerate places the weights.
    Raises InputError when weights are damaged or missing, a package is not installed, or the
    adapter does not fit.
    """
    model = _load_base(files, dtype, device, device_map)
    if files.adapter is not None:
        with _quiet():
            attach(model, files.adapter)
    return model


class Loader:
    """Loads models one after another and keeps the last base, so that adapters of one base swap.

    A model that `load` gave is good until the next `load` or `close`: an adapter is taken off the
    same modules that the next one is hung into. Nothing is merged and nothing is written.
    """

    def __init__(self, dtype: Dtype, device: str, device_map: str | None = None) -> None:
        self._options: tuple[Dtype, str, str | None] = (dtype, device, device_map)
        self._base: PreTrainedModel | None = None
        self._fingerprint = ""
        self._take_off: Callable[[], None] | None = None

    def load(self, files: ModelFiles) -> PreTrainedModel:
        """The model, its parameters frozen. Raises InputError as `load_weights` does."""
        if self._take_off is not None:
            self._take_off()
            self._take_off = None
        if self._base is None or self._fingerprint != files.base_fingerprint:
            self.close()
            self._base = _load_base(files, *self._options).requires_grad_(False)
            self._fingerprint = files.base_fingerprint
        if files.adapter is not None:
            with _quiet():
                self._take_off = attach(self._base, files.adapter)
        return self._base

    def close(self) -> None:
        """Lets go of the base, and gives its memory back where nobody else holds it."""
        self._base, self._fingerprint, self._take_off = None, "", None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_ahead(files: ModelFiles) -> None:
    """Asks the system to bring a model's weight files into memory while something else computes.

    A hint: it returns at once, and does nothing where the platform has no `posix_fadvise`.
    """
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    for path in files.weights:
        with path.open("rb") as stream:
            advise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _load_base(
    files: ModelFiles, dtype: Dtype, device: str, device_map: str | None
) -> PreTrainedModel:
    """The model without its adapter."""
    placed = _placement(files, device, device_map)
    with _quiet():
        model, missing = _from_pretrained(files, DTYPES[dtype], placed)
    if missing:
        raise InputError(
            where=files.spec,
            expected="weights for every parameter",
            got=f"none for {missing[0]}",
            fix="copy or save the model again",
        )
    loaded: PreTrainedModel = (model if placed else model.to(device)).eval()
    return loaded


def _placement(files: ModelFiles, device: str, device_map: str | None) -> dict[str, Any]:
    """How transformers is to place the weights; nothing where the model is moved afterwards."""
    if device_map is None:
        unmovable = files.quantization is not None and files.gguf is None
        return {"device_map": {"": device}} if unmovable else {}
    require_packages("accelerate", "accelerate", where="--device-map")
    if device_map not in DEVICE_MAPS:
        raise InputError(
            where="--device-map",
            expected=", ".join(DEVICE_MAPS),
            got=repr(device_map),
            fix="choose one of them, or give --device alone",
        )
    return {"device_map": device_map}


def _from_pretrained(
    files: ModelFiles, dtype: torch.dtype, placed: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """The model as transformers loads it, and the parameters that its files lack."""
    options: dict[str, Any] = {"dtype": dtype, "output_loading_info": True, **placed}
    options |= {"use_safetensors": True} if files.gguf is None else _gguf_options(files)
    whole = files.quantization is None or files.gguf is not None
    form = "GGUF" if files.gguf else "safetensors"
    try:
        model, report = AutoModelForCausalLM.from_pretrained(files.folder, **options)
    except ImportError as error:
        extra = (files.quantization or "").split()[0]
        named = f"pip install 'fixed-context-diagnostics[{extra}]'"
        raise InputError(
            where=files.spec,
            expected=f"the library that reads {files.quantization} weights",
            got=" ".join(str(error).split())[:200],
            fix=named if extra == "bitsandbytes" else "install it",
        ) from error
    except Exception as error:  # safetensors raises its own, torch RuntimeError, HF OSError
        raise InputError(
            where=files.spec,
            expected=f"whole {form} weights that fit config.json"
            if whole
            else f"{files.quantization} weights that can be loaded here",
            got=" ".join(str(error).split())[:200],
            fix="copy or save the model again" if whole else "give the whole weights",
        ) from error
    return model, sorted(report["missing_keys"])


def _gguf_options(files: ModelFiles) -> dict[str, Any]:
    """Options that unpack a GGUF file, so that it is a plain model: to score, train and save."""
    packed = getattr(transformers, "GgufConfig", None)  # newer versions can keep blocks packed
    unpack = {"quantization_config": packed(dequantize=True)} if packed else {}
    return {"gguf_file": files.gguf, "config": files.config, **unpack}


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers and what it loads show no bars and log no warnings: the commands speak."""
    disable_progress_bar()
    gguf_loader.tqdm = partial(tqdm, disable=True)  # does not heed the line above
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line a layer, also in forwards
    verbosity = get_verbosity()
    set_verbosity_error()
    try:
        yield
    finally:
        set_verbosity(verbosity)


def final_hidden(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Hidden states that the head would get, (batch, length, hidden), for ids (batch, length)."""
    body = model.get_decoder()
    output = body(input_ids=ids, attention_mask=attention_mask, use_cache=False)
    hidden: Tensor = output.last_hidden_state
    return hidden
