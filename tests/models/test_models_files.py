"""What is known of a model before its weights move, and everything that is refused by then."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from doubles import (
    WORDS,
    copy,
    perturbed,
    random_model,
    save,
    word_tokenizer,
)

from diagnostics.errors import InputError
from diagnostics.models import files as files_module
from diagnostics.models.files import (
    check_one_width,
    check_shared_vocabulary,
    check_top_k,
    open_model,
    require_tokenizer,
    require_trainable,
    shared_vocabulary,
    tokenizer_fingerprint,
)


def refused(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        open_model(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_model_is_described_without_loading_weights(
    student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.PreTrainedModel.from_pretrained", lambda *a, **k: pytest.fail("loaded")
    )
    files = open_model(student)
    assert (files.spec, files.folder, files.vocabulary) == (student, Path(student), 64)
    assert files.config.model_type == "qwen3"
    assert require_tokenizer(files)("w0 w1")["input_ids"] == [6, 7]


def test_checkpoint_may_lack_a_tokenizer(checkpoint: str) -> None:
    files = open_model(checkpoint)
    assert files.tokenizer is None
    with pytest.raises(InputError, match="expected a tokenizer beside the weights, got none"):
        require_tokenizer(files)


def test_fingerprint_is_of_the_content_not_of_the_place(student: str, tmp_path: Path) -> None:
    assert open_model(str(copy(student, tmp_path / "x"))).fingerprint == (
        open_model(student).fingerprint
    )


def test_fingerprint_changes_with_one_weight(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "x")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert open_model(str(folder)).fingerprint != open_model(student).fingerprint


def test_fingerprint_changes_with_the_configuration(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    config["rms_norm_eps"] *= 2
    (folder / "config.json").write_text(json.dumps(config))
    assert open_model(str(folder)).fingerprint != open_model(student).fingerprint


def test_fingerprint_counts_every_shard(tmp_path: Path) -> None:
    save(random_model(2), tmp_path / "a", None, max_shard_size="8KB")
    shards = sorted((tmp_path / "a").glob("*.safetensors"))
    assert len(shards) > 1
    before = open_model(str(tmp_path / "a")).fingerprint
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    assert open_model(str(tmp_path / "a")).fingerprint != before


def test_tokenizer_fingerprint_is_of_the_table(student: str, stranger: str) -> None:
    one, other = (require_tokenizer(open_model(spec)) for spec in (student, stranger))
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(word_tokenizer())
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(other)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nobody"
    assert refused(str(path)) == (
        f"{path}: expected a model folder, a GGUF file or a Hub id (owner/name or "
        "owner/name@revision), got no such folder or file; check the path"
    )


@pytest.mark.parametrize("spec", ["./nobody", "~/nobody/here", "nobody", "a/b/c", ""])
def test_what_is_no_hub_id_is_not_looked_for_on_the_hub(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(InputError, match="expected a model folder"):
        open_model(spec)


@pytest.mark.parametrize("spec", ["owner/name", "owner/name@main", "owner/na me"])
def test_hub_id_that_cannot_be_had_is_refused(spec: str) -> None:
    assert refused(spec).startswith(f"{spec}: expected a model folder, or a model that the Hub has")


def test_hub_download_asks_for_no_pickles(student: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def fake(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return student

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    assert open_model("owner/name@v1").folder == Path(student)
    assert (asked["name"], asked["revision"]) == ("owner/name", "v1")
    assert "*.safetensors" in asked["patterns"]
    assert not any(p.endswith((".bin", ".pt", ".pth", ".pkl", ".py")) for p in asked["patterns"])


def test_pickled_weights_alone_are_refused(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "x")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    said = refused(str(folder))
    assert "expected a model folder with config.json and safetensors weights" in said
    assert "pytorch_model.bin" in said
    assert "save_pretrained" in said


@pytest.mark.parametrize("missing", ["model.safetensors", "config.json"])
def test_incomplete_folder_is_refused(student: str, tmp_path: Path, missing: str) -> None:
    folder = copy(student, tmp_path / "x")
    (folder / missing).unlink()
    assert "expected a model folder with config.json and safetensors weights" in refused(
        str(folder)
    )


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "got an empty folder" in refused(str(tmp_path))


def test_shard_that_the_index_names_and_is_missing_is_named(tmp_path: Path) -> None:
    save(random_model(2), tmp_path / "m", None, max_shard_size="8KB")
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    shards[1].unlink()
    assert refused(str(tmp_path / "m")) == (
        f"{tmp_path}/m/model.safetensors.index.json: expected the {len(shards)} weight files that "
        f"it names, got {len(shards) - 1} of them, {shards[1].name} missing; "
        "copy or download the model again"
    )


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_that_names_nothing_is_refused(student: str, tmp_path: Path, content: str) -> None:
    folder = copy(student, tmp_path / "x")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    assert refused(str(folder)) == (
        f"{folder}/model.safetensors.index.json: expected a weight_map, got none; "
        "copy or download the model again"
    )


def test_weights_that_transformers_would_not_load_do_not_count(
    student: str, tmp_path: Path
) -> None:
    """Of a folder that also keeps another layout, the fingerprint is of what is loaded."""
    folder = copy(student, tmp_path / "x")
    (folder / "consolidated.safetensors").write_bytes(b"of another program")
    files = open_model(str(folder))
    assert files.weights == (folder / "model.safetensors",)
    assert files.fingerprint == open_model(student).fingerprint
    (folder / "model.safetensors").unlink()
    assert "got chat_template.jinja, config.json, consolidated.safetensors" in refused(str(folder))


def test_file_that_changed_is_read_again_and_one_that_did_not_is_not(
    student: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = copy(student, tmp_path / "x"), []
    original = files_module.sha256_file
    monkeypatch.setattr(
        files_module, "sha256_file", lambda p: (read.append(p.name), original(p))[1]
    )
    first = open_model(str(folder)).fingerprint
    assert sorted(read) == ["config.json", "model.safetensors"]
    assert open_model(str(folder)).fingerprint == first
    assert len(read) == 2
    save(random_model(9), folder, None)
    assert open_model(str(folder)).fingerprint != first
    assert "model.safetensors" in read[2:]


# What the libraries themselves write into config.json, cut to what tells their form.
STAMPS = {
    "bitsandbytes 4-bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes 8-bit": {"quant_method": "bitsandbytes", "load_in_8bit": True, "bits": None},
    "gptq 4-bit": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq 4-bit": {"quant_method": "awq", "bits": 4, "version": "gemm"},
    "fp8": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "mxfp4": {"quant_method": "mxfp4"},
    "compressed-tensors 8-bit": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
    },
    "compressed-tensors": {
        "quant_method": "compressed-tensors",
        "config_groups": {"a": {"weights": {"num_bits": 8}}, "b": {"weights": {"num_bits": 4}}},
    },
    "unknown": {"something": 3},
}


@pytest.mark.parametrize("stamp", STAMPS)
def test_quantised_folder_is_stamped(student: str, tmp_path: Path, stamp: str) -> None:
    folder = copy(student, tmp_path / "x")
    config = json.loads((folder / "config.json").read_text())
    assert open_model(str(folder)).quantization is None
    config["quantization_config"] = STAMPS[stamp]
    (folder / "config.json").write_text(json.dumps(config))
    assert open_model(str(folder)).quantization == stamp


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"adapter": Path("a"), "quantization": "gguf Q8_0", "gguf": "x"}, "an adapter"),
        ({"quantization": "gptq 4-bit"}, "gptq 4-bit weights"),
    ],
)
def test_student_without_whole_weights_cannot_be_trained(
    student: str, changes: dict[str, object], got: str
) -> None:
    files = open_model(student)
    require_trainable(files)
    require_trainable(replace(files, gguf="x", quantization="gguf Q8_0"))
    with pytest.raises(InputError) as caught:
        require_trainable(replace(files, **changes))
    assert str(caught.value) == (
        f"{student}: expected a student with whole weights, got {got}; "
        "merge or dequantise it and save the whole model"
    )


def test_file_is_no_model(student: str) -> None:
    assert "got a file" in refused(f"{student}/config.json")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_type": "nobody-knows"}', '{"model_type": 3}', "\x00"]
)
def test_bad_configuration_is_refused_in_one_line(
    student: str, tmp_path: Path, content: str
) -> None:
    folder = copy(student, tmp_path / "x")
    (folder / "config.json").write_text(content)
    assert "config.json: expected a configuration that transformers knows" in refused(str(folder))


@pytest.mark.parametrize("content", ["{", "{}", '{"version": "1.0"}'])
def test_bad_tokenizer_is_refused_in_one_line(student: str, tmp_path: Path, content: str) -> None:
    folder = copy(student, tmp_path / "x")
    (folder / "tokenizer.json").write_text(content)
    assert "expected a tokenizer that transformers can read" in refused(str(folder))


def test_shared_vocabulary_passes(student: str, teacher: str, checkpoint: str) -> None:
    for other in (teacher, checkpoint):
        check_shared_vocabulary(open_model(student), open_model(other))


@pytest.mark.parametrize("swap", [False, True])
def test_vocabularies_that_differ_name_the_first_token(
    student: str, stranger: str, swap: bool
) -> None:
    """The stranger swaps ids 9 and 10."""
    pair = (stranger, student) if swap else (student, stranger)
    with pytest.raises(InputError) as caught:
        check_shared_vocabulary(*map(open_model, pair))
    tokens = ("'w4'", "'w3'") if swap else ("'w3'", "'w4'")
    assert str(caught.value) == (
        f"{pair[0]} and {pair[1]}: expected one shared vocabulary, got token id 9 = {tokens[0]} in "
        f"the first, {tokens[1]} in the second; 2 of 64 ids differ; "
        "choose two models of one tokenizer"
    )


@pytest.mark.parametrize("rows", [64, 66, 72])
def test_table_that_goes_on_where_the_other_ends_is_padding(
    student: str, tmp_path: Path, rows: int
) -> None:
    """Two words more: rows of its head that the other has not, or has as padding."""
    words = word_tokenizer([*WORDS, "w58", "w59"])
    longer = open_model(save(random_model(5, vocabulary=rows), tmp_path / "longer", words))
    check_shared_vocabulary(open_model(student), longer)
    check_shared_vocabulary(longer, open_model(student))


def test_token_that_one_table_lacks_amid_the_other_is_named(student: str, tmp_path: Path) -> None:
    folder = copy(student, tmp_path / "holes")
    table = json.loads((folder / "tokenizer.json").read_text())
    del table["model"]["vocab"]["w14"]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    said = "got token id 20 = 'w14' in the first, None in the second; 1 of 64 ids differ"
    with pytest.raises(InputError, match=re.escape(said)):
        check_shared_vocabulary(open_model(student), open_model(str(folder)))


@pytest.mark.parametrize("tokenizer", [True, False])
def test_heads_of_two_widths_share_the_fewer_rows(
    student: str, tmp_path: Path, tokenizer: bool
) -> None:
    wide = save(
        random_model(5, vocabulary=72), tmp_path / "wide", word_tokenizer() if tokenizer else None
    )
    pair = [open_model(student), open_model(wide)]
    check_shared_vocabulary(*pair)
    assert shared_vocabulary(pair) == shared_vocabulary(pair[::-1]) == 64
    assert shared_vocabulary(pair[1:]) == 72
    with pytest.raises(InputError) as caught:
        check_one_width(*pair)
    assert str(caught.value) == (
        f"{student} and {wide}: expected logits of one width, got 64 and 72; "
        "choose two models of one vocabulary size"
    )
    check_one_width(pair[0], pair[0])


@pytest.mark.parametrize("k", [-1, 0, 65])
def test_support_beyond_the_vocabulary_is_refused(k: int) -> None:
    with pytest.raises(InputError) as caught:
        check_top_k(k, 64)
    assert str(caught.value) == (
        f"--top-k: expected 1 to 64, the size of the vocabulary, got {k}; choose a smaller support"
    )
    check_top_k(1, 64)
    check_top_k(64, 64)


def test_doubles_are_what_they_say() -> None:
    """The doubles of this suite: one seed, one model; noise moves every weight a little."""
    one, two = random_model(2), random_model(2)
    moved = perturbed(random_model(2), seed=3)
    for a, b, c in zip(one.parameters(), two.parameters(), moved.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
