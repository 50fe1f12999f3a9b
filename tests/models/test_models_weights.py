"""Weights load from safetensors only; body and head apart give the whole model's logits."""

from __future__ import annotations

import io
import json
import logging
import os
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import copy, random_model, save, slow_logprobs, slow_model
from forms import adapter_over, logits
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from diagnostics.errors import InputError
from diagnostics.models import weights as weights_module
from diagnostics.models.adapters import effective_head
from diagnostics.models.files import open_model
from diagnostics.models.heads import head_of
from diagnostics.models.weights import (
    DTYPES,
    Loader,
    final_hidden,
    load_weights,
    read_ahead,
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


def test_device_map_gives_the_same_logits(student: str) -> None:
    files = open_model(student)
    placed = load_weights(files, "float32", "cpu", "auto")
    assert torch.equal(logits(placed), logits(load_weights(files, "float32", "cpu")))


@pytest.mark.parametrize("name", ["", "cpu", "everywhere"])
def test_unknown_device_map_is_refused(student: str, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_weights(open_model(student), "float32", "cpu", name)
    assert str(caught.value) == (
        "--device-map: expected auto, balanced, balanced_low_0, sequential, "
        f"got {name!r}; choose one of them, or give --device alone"
    )


def test_device_map_without_accelerate_names_the_extra(
    student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diagnostics.errors.find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        load_weights(open_model(student), "float32", "cpu", "auto")
    assert str(caught.value) == (
        "--device-map: expected the package accelerate, got none installed; "
        "pip install 'fixed-context-diagnostics[accelerate]'"
    )
    load_weights(open_model(student), "float32", "cpu")  # needs none of it


def test_loader_gives_what_load_weights_gives_and_lets_go(student: str, checkpoint: str) -> None:
    with Loader("float32", "cpu") as loader:
        for spec in (student, checkpoint, student):
            files = open_model(spec)
            model = loader.load(files)
            assert loader.load(files) is model
            assert not any(parameter.requires_grad for parameter in model.parameters())
            assert torch.equal(logits(model), logits(load_weights(files, "float32", "cpu")))
        alive = weakref.ref(model)
        del model
    assert alive() is None


def test_loader_lets_go_of_the_old_before_it_loads_the_new(
    student: str, checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader("float32", "cpu")
    alive = weakref.ref(loader.load(open_model(student)))
    original, seen = weights_module._from_pretrained, []

    def watched(*arguments: Any) -> Any:
        seen.append(alive())
        return original(*arguments)

    monkeypatch.setattr(weights_module, "_from_pretrained", watched)
    loader.load(open_model(checkpoint))
    assert seen == [None]


def test_reading_ahead_asks_for_every_byte_of_every_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = open_model(saved(tmp_path / "m", tied=False, sharded=True))
    files = replace(files, weights=(*files.weights, tmp_path / "m" / "config.json"))
    asked = []
    monkeypatch.setattr(
        "os.posix_fadvise",
        lambda fd, start, size, how: asked.append((os.fstat(fd).st_ino, start, size, how)),
        raising=False,
    )
    monkeypatch.setattr("os.POSIX_FADV_WILLNEED", "willneed", raising=False)
    read_ahead(files)
    assert asked == [(path.stat().st_ino, 0, 0, "willneed") for path in files.weights]


def test_reading_ahead_changes_nothing(student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = open_model(student)
    read_ahead(files)
    assert open_model(student).fingerprint == files.fingerprint
    monkeypatch.delattr("os.posix_fadvise", raising=False)
    read_ahead(files)


def test_loading_says_nothing_and_leaves_the_verbosity(student: str, tmp_path: Path) -> None:
    """Transformers would log a table of what it missed."""
    folder = copy(student, tmp_path / "x")
    tensors = load_file(folder / "model.safetensors")
    tensors["more"] = tensors.pop("model.norm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    said = io.StringIO()
    listener = logging.StreamHandler(said)
    transformers_logging.add_handler(listener)
    before = transformers_logging.get_verbosity()
    try:
        refused(str(folder))
        load_weights(open_model(student), "float32", "cpu")
        assert said.getvalue() == ""
        assert transformers_logging.get_verbosity() == before == transformers_logging.WARNING
        Qwen3ForCausalLM.from_pretrained(folder)
        assert "model.norm.weight" in said.getvalue(), "the listener hears nothing at all"
    finally:
        transformers_logging.remove_handler(listener)


def quantised(folder: Path, **options: bool) -> PreTrainedModel:
    """A network of 64 numbers a row as bitsandbytes packs it, saved; gives the packed network."""
    from transformers import BitsAndBytesConfig

    save(random_model(2, hidden=64, layers=2), folder / "whole", None)
    model = Qwen3ForCausalLM.from_pretrained(
        folder / "whole", dtype=torch.float32, quantization_config=BitsAndBytesConfig(**options)
    )
    model.save_pretrained(folder / "packed")
    return model


@pytest.mark.slow
def test_bitsandbytes_folder_keeps_its_form_and_its_logits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    packed = quantised(tmp_path, load_in_8bit=True)
    truth = logits(packed)
    files = open_model(str(tmp_path / "packed"))
    assert files.quantization == "bitsandbytes 8-bit"
    capfd.readouterr()
    with Loader("float32", "cpu") as loader:
        model = loader.load(files)
        found = logits(model)
        assert capfd.readouterr() == ("", "")
    assert type(model.model.layers[0].mlp.up_proj).__name__ == "Linear8bitLt"
    assert torch.equal(found, truth)
    whole = logits(load_weights(open_model(str(tmp_path / "whole")), "float32", "cpu"))
    error = float((found - whole).abs().max())
    assert 0 < error < 0.5  # 8 bits a number: about 1 % of logits that spread over nats


@pytest.mark.slow
def test_adapter_over_a_bitsandbytes_base(tmp_path: Path) -> None:
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"])
    truth = adapter_over(quantised(tmp_path, load_in_8bit=True), tmp_path / "a", config)
    with Loader("float32", "cpu") as loader:
        alone = logits(loader.load(open_model(str(tmp_path / "packed"))))
        both = loader.load(open_model(f"{tmp_path / 'packed'}+{tmp_path / 'a'}"))
        assert torch.equal(logits(both), truth)
        again = logits(loader.load(open_model(str(tmp_path / "packed"))))
        assert torch.equal(again, alone)
        assert not torch.equal(alone, truth)


@pytest.mark.slow
def test_packed_head_is_no_matrix(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    save(random_model(2, hidden=64), tmp_path / "whole", None)
    model = Qwen3ForCausalLM.from_pretrained(
        tmp_path / "whole",
        quantization_config=BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["none"]),
    )
    with pytest.raises(InputError, match="got a Linear8bitLt as the head"):
        effective_head(model, "m")


@pytest.mark.parametrize(
    ("stamp", "fix"),
    [
        ("bitsandbytes 4-bit", "pip install 'fixed-context-diagnostics[bitsandbytes]'"),
        ("gptq 4-bit", "install it"),
    ],
)
def test_missing_library_of_a_quantised_model_is_named(
    student: str, monkeypatch: pytest.MonkeyPatch, stamp: str, fix: str
) -> None:
    def absent(*arguments: object, **options: object) -> None:
        raise ImportError("it needs a library:\n`pip install it`")

    monkeypatch.setattr(weights_module.AutoModelForCausalLM, "from_pretrained", absent)
    with pytest.raises(InputError) as caught:
        load_weights(replace(open_model(student), quantization=stamp), "float32", "cpu")
    assert str(caught.value) == (
        f"{student}: expected the library that reads {stamp} weights, "
        f"got it needs a library: `pip install it`; {fix}"
    )


@pytest.mark.slow
def test_quantised_weights_of_a_kind_that_is_not_installed_are_refused(
    student: str, tmp_path: Path
) -> None:
    """GPTQ needs a library that is in no extra; transformers itself says which."""
    folder = copy(student, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    assert refused(str(folder)).startswith(f"{folder}: expected the library that reads gptq 4-bit")
