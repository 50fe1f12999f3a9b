"""Rollouts of slime: a pickle, so read with a list of what may be in it.

A pickle can name any function, and loading it calls them. torch's reader with `weights_only` builds
plain values and tensors alone; numpy arrays and numbers, which samples hold too, are added to what
it knows. Everything else is refused before anything of it runs.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diagnostics.bank.imports.written import bad_value
from diagnostics.errors import InputError


def load_samples(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samples of one file as mappings, each with its place.

    Raises InputError for a missing or damaged file, and for one that holds objects of a class.
    """
    content = _load(path)
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list):
        raise InputError(
            where=str(path),
            expected="a mapping with a list `samples`, as slime's --save-debug-rollout-data writes",
            got=", ".join(map(str, content))[:80] if isinstance(content, dict) else "no mapping",
            fix="check the file",
        )
    for number, sample in enumerate(samples):
        where = f"{path}, sample {number}"
        if not isinstance(sample, dict):
            raise bad_value(where, "a mapping", sample)
        yield where, sample


def _load(path: Path) -> Any:
    import torch

    try:
        with torch.serialization.safe_globals(_numpy_parts()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols: an error follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(
            where=str(path), expected="a .pt file", got="no such file", fix="check the path"
        ) from error
    except pickle.UnpicklingError as error:
        raise InputError(
            where=str(path),
            expected="a pickle of plain values, tensors and arrays",
            got=_refusal(error),
            fix="it was not loaded; save samples with `to_dict`, as slime does",
        ) from error
    except Exception as error:  # a damaged archive ends in errors of many kinds
        raise InputError(
            where=str(path),
            expected="a readable .pt file",
            got=f"damage ({' '.join(str(error).split())[:120]})",
            fix="write the file again",
        ) from error


def _refusal(error: Exception) -> str:
    """The first sentence of torch's refusal that names what it found."""
    sentences = [line.strip() for line in str(error).splitlines()]
    named = [s for s in sentences if "GLOBAL" in s or "Unsupported" in s]
    return " ".join((named or sentences or [""])[0].split())[:160]


def _numpy_parts() -> list[Any]:
    """What numpy's arrays and numbers are pickled as, by their old and new names."""
    rebuild = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    old = [
        (rebuild, "numpy.core.multiarray._reconstruct"),
        (scalar, "numpy.core.multiarray.scalar"),
    ]
    return [np.ndarray, np.dtype, rebuild, scalar, *old, *kinds]
