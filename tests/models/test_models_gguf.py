"""A GGUF file is a model: its weights, its configuration and its tokenizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf
import pytest
import torch
from doubles import SPECIAL, WORDS, save, word_tokenizer
from forms import logits, qwen2, unpack_q8_0, write_gguf

from diagnostics.errors import InputError
from diagnostics.models.adapters import effective_head
from diagnostics.models.files import check_shared_vocabulary, open_model, require_tokenizer
from diagnostics.models.weights import DTYPES, load_weights


def refused(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(open_model(spec), "float32", "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_float32_file_gives_the_very_logits_of_its_weights(tmp_path: Path, tied: bool) -> None:
    model = qwen2(1, tied=tied)
    files = open_model(write_gguf(model, tmp_path / "model.gguf"))
    assert (files.quantization, files.vocabulary, files.gguf) == (None, 64, "model.gguf")
    assert torch.equal(logits(load_weights(files, "float32", "cpu")), logits(model))


def test_q8_0_file_gives_the_logits_of_what_its_blocks_keep(tmp_path: Path) -> None:
    model = qwen2(1)
    files = open_model(write_gguf(model, tmp_path / "model.gguf", "Q8_0"))
    assert files.quantization == "gguf Q8_0"
    whole = logits(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.from_numpy(unpack_q8_0(parameter.numpy())))
    found = logits(load_weights(files, "float32", "cpu"))
    assert torch.equal(found, logits(model))
    assert not torch.equal(found, whole)


def test_half_precision_is_whole(tmp_path: Path) -> None:
    model = qwen2(1)
    files = open_model(write_gguf(model, tmp_path / "model.gguf", "F16"))
    assert files.quantization is None
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half().float())
    assert torch.equal(logits(load_weights(files, "float32", "cpu")), logits(model))


@pytest.mark.parametrize("name", DTYPES)
def test_file_is_unpacked_into_the_asked_dtype(tmp_path: Path, name: str) -> None:
    model = load_weights(
        open_model(write_gguf(qwen2(1), tmp_path / "model.gguf", "Q8_0")), name, "cpu"
    )
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {DTYPES[name]}
    assert effective_head(model, "m")[0].shape == (64, 32)


def test_tokenizer_comes_from_the_file(tmp_path: Path) -> None:
    files = open_model(write_gguf(qwen2(1), tmp_path / "model.gguf"))
    tokenizer = require_tokenizer(files)
    table = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    assert table.items() <= tokenizer.get_vocab().items()
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<end>", "<pad>")
    folder = save(qwen2(1), tmp_path / "folder", word_tokenizer())
    check_shared_vocabulary(files, open_model(folder))


def test_neighbours_in_the_folder_are_not_read(tmp_path: Path) -> None:
    save(qwen2(5, layers=1), tmp_path, word_tokenizer(["other", *WORDS[1:]]))
    files = open_model(write_gguf(qwen2(1), tmp_path / "model.gguf"))
    assert files.config.num_hidden_layers == 2
    assert require_tokenizer(files).get_vocab()["w0"] == 6
    assert torch.equal(logits(load_weights(files, "float32", "cpu")), logits(qwen2(1)))


def test_fingerprint_is_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    one = open_model(write_gguf(qwen2(1), tmp_path / "one.gguf"))
    same = open_model(write_gguf(qwen2(1), tmp_path / "two.gguf"))
    other = open_model(write_gguf(qwen2(2), tmp_path / "three.gguf"))
    assert one.fingerprint == one.base_fingerprint == same.fingerprint != other.fingerprint


def test_unpacked_model_can_be_saved_and_opened_as_whole(tmp_path: Path) -> None:
    """A student that came as GGUF is trained and saved as a folder."""
    model = load_weights(
        open_model(write_gguf(qwen2(1), tmp_path / "model.gguf", "Q8_0")), "float32", "cpu"
    )
    model.save_pretrained(tmp_path / "saved")
    files = open_model(str(tmp_path / "saved"))
    assert files.quantization is None
    assert torch.equal(logits(load_weights(files, "float32", "cpu")), logits(model))


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = write_gguf(qwen2(1), tmp_path / "model.gguf", "Q8_0")
    capfd.readouterr()
    load_weights(open_model(spec), "float32", "cpu")
    assert capfd.readouterr() == ("", "")


def test_stamp_is_the_commonest_packed_type_where_the_file_does_not_say(tmp_path: Path) -> None:
    def say_nothing(writer: gguf.GGUFWriter) -> None:
        for table in writer.kv_data:
            table.pop("general.file_type")

    files = open_model(write_gguf(qwen2(1), tmp_path / "m.gguf", "Q8_0", extra=say_nothing))
    assert files.quantization == "gguf Q8_0"


@pytest.mark.parametrize("missing", ["gguf", "accelerate"])
def test_missing_package_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    spec = write_gguf(qwen2(1), tmp_path / "model.gguf")
    monkeypatch.setattr(
        "diagnostics.errors.find_spec",
        lambda name: None if name == missing else importlib.util.find_spec(name),
    )
    assert refused(spec) == (
        f"{spec}: expected the package {missing}, got none installed; "
        "pip install 'fixed-context-diagnostics[gguf]'"
    )


@pytest.mark.parametrize("cut", [0, 4, 100, 1000, -1])
def test_damaged_file_is_refused_in_one_line(tmp_path: Path, cut: int) -> None:
    path = Path(write_gguf(qwen2(1), tmp_path / "model.gguf"))
    path.write_bytes(path.read_bytes()[:cut])
    said = refused(str(path))
    assert said.startswith(f"{path}: expected a whole GGUF file, got ")
    assert said.endswith("; download or convert it again")


def test_unknown_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "nobody-knows")
    writer.add_token_list(["a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert refused(str(path)) == (
        f"{path}: expected a configuration that transformers knows, got GGUF model with "
        "architecture nobody-knows is not supported yet.; update transformers, or check the file"
    )


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    spec = write_gguf(qwen2(1), tmp_path / "model.gguf", without=name)
    assert refused(spec) == (
        f"{spec}: expected weights for every parameter, got none for {name}; "
        "copy or save the model again"
    )


ROPE = {
    "rope_freqs.weight": lambda w: w.add_tensor("rope_freqs.weight", torch.ones(8).numpy()),
    "qwen2.rope.scaling.type=yarn": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN),
}


@pytest.mark.parametrize("found", ROPE)
def test_rotary_scaling_that_transformers_would_drop_is_refused(tmp_path: Path, found: str) -> None:
    spec = write_gguf(qwen2(1), tmp_path / "model.gguf", extra=ROPE[found])
    assert refused(spec) == (
        f"{spec}: expected rotary positions without scaling, all that transformers reads from "
        f"GGUF, got {found}; give the model as safetensors"
    )


def test_rotary_scaling_of_none_is_fine(tmp_path: Path) -> None:
    none = gguf.RopeScalingType.NONE
    spec = write_gguf(qwen2(1), tmp_path / "m.gguf", extra=lambda w: w.add_rope_scaling_type(none))
    assert torch.equal(logits(load_weights(open_model(spec), "float32", "cpu")), logits(qwen2(1)))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "no.gguf")) == (
        f"{tmp_path}/no.gguf: expected a model folder, a GGUF file or a Hub id (owner/name or "
        "owner/name@revision), got no such folder or file; check the path"
    )
