"""Weights load from safetensors only; body and head apart give the whole model's logits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from doubles import copy, random_model, save, slow_logprobs, slow_model
from safetensors.torch import load_file, save_file

from diagnostics.errors import InputError
from diagnostics.models.files import open_model
from diagnostics.models.heads import head_of
from diagnostics.models.weights import (
    DTYPES,
    final_hidden,
    load_weights,
    resolve_device,
    resolve_dtype,
)

# log-probabilities of float32 nets of one and two layers against float64
LOGPROB_TOLERANCE = 2e-5


def saved(folder: Path, *, tied: bool, sharded: bool) -> str:
    options = {"max_shard_size": "8KB"} if sharded else {}
    spec = save(random_model(7, tied=tied), folder, None, **options)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == sharded
    return spec


def refused(spec: str) -> str:
    files = open_model(spec)
    with pytest.raises(InputError) as caught:
        load_weights(files, "float32", "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_body_and_head_apart_give_the_whole_models_distributions(
    tmp_path: Path, tied: bool
) -> None:
    spec = saved(tmp_path / "m", tied=tied, sharded=False)
    files = open_model(spec)
    model = load_weights(files, "float32", "cpu")
    ids = torch.tensor([[6, 7, 8, 9, 10]])
    with torch.no_grad():
        states = final_hidden(model, ids, torch.ones_like(ids))[0]
    logits = head_of(model, spec).logits(states)
    found = torch.log_softmax(logits.double(), dim=1)[:-1]
    truth = slow_logprobs(slow_model(spec), [6], [7, 8, 9, 10])
    assert torch.allclose(found, truth, rtol=0, atol=LOGPROB_TOLERANCE)


def test_model_is_loaded_for_evaluation_in_the_asked_dtype(student: str) -> None:
    for name, dtype in DTYPES.items():
        model = load_weights(open_model(student), name, "cpu")
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_damaged_weights_are_refused_in_one_line(student: str, tmp_path: Path, cut: int) -> None:
    folder = copy(student, tmp_path / "x")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    said = refused(str(folder))
    assert said.startswith(
        f"{folder}: expected whole safetensors weights that fit config.json, got "
    )
    assert said.endswith("copy or save the model again")


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = Path(saved(tmp_path / "m", tied=False, sharded=True))
    sorted(folder.glob("*.safetensors"))[0].unlink()
    assert str(folder) in refused(str(folder))


def test_missing_tensor_is_named(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "expected weights for every parameter, got none for " in refused(str(folder))
    assert "model.layers.0.mlp.up_proj.weight" in refused(str(folder))


def test_weights_of_another_shape_are_refused(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["intermediate_size"] += 8
    (folder / "config.json").write_text(json.dumps(config))
    assert "expected whole safetensors weights that fit config.json" in refused(str(folder))


def test_auto_device_and_dtype_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    assert resolve_dtype("auto", "cpu") == "float32"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert resolve_device("auto") == "cuda"
    assert resolve_dtype("auto", "cuda") == "bfloat16"
    assert resolve_dtype("float16", "cpu") == "float16"


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "cpu:x", ""])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--device: expected a device of this machine") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["float64", "int8", "", "Float32"])
def test_unknown_dtypes_are_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_dtype(name, "cpu")
    assert str(caught.value) == (
        f"--dtype: expected auto, float32, bfloat16, float16, got {name!r}; choose one of them"
    )
