"""What is known of a model before its weights move, and everything that is refused by then."""

from __future__ import annotations

import json
import re
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
from diagnostics.models.files import (
    check_shared_vocabulary,
    open_model,
    require_tokenizer,
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
        f"{path}: expected a model folder or a Hub id (owner/name or owner/name@revision), "
        "got no such folder; check the path"
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


@pytest.mark.parametrize("exists", [True, False])
def test_gguf_file_is_refused_by_name(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "model.gguf"
    if exists:
        path.write_bytes(b"GGUF")
    assert "got a GGUF file" in refused(str(path))


def test_adapter_is_refused_by_name(student: str) -> None:
    assert "got a base with an adapter" in refused(f"{student}+adapter")


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


def test_vocabularies_that_differ_name_the_first_token(student: str, stranger: str) -> None:
    with pytest.raises(InputError) as caught:
        check_shared_vocabulary(open_model(student), open_model(stranger))
    assert str(caught.value) == (
        f"{student} and {stranger}: expected one shared vocabulary, got token id 9 = 'w3' in the "
        "first, 'w4' in the second; choose two models of one tokenizer"
    )


@pytest.mark.parametrize("swap", [False, True])
def test_token_that_one_lacks_is_named(student: str, tmp_path: Path, swap: bool) -> None:
    more = save(random_model(5, vocabulary=65), tmp_path / "more", word_tokenizer([*WORDS, "w58"]))
    pair = [open_model(student), open_model(more)]
    said = "token id 64 = None in the first, 'w58' in the second"
    if swap:
        pair.reverse()
        said = "token id 64 = 'w58' in the first, None in the second"
    with pytest.raises(InputError, match=re.escape(said)):
        check_shared_vocabulary(*pair)


@pytest.mark.parametrize("tokenizer", [True, False])
def test_logits_of_two_widths_are_refused(student: str, tmp_path: Path, tokenizer: bool) -> None:
    wide = save(
        random_model(5, vocabulary=72), tmp_path / "wide", word_tokenizer() if tokenizer else None
    )
    with pytest.raises(InputError, match="expected logits of one width, got 64 and 72"):
        check_shared_vocabulary(open_model(student), open_model(wide))


def test_doubles_are_what_they_say() -> None:
    """The doubles of this suite: one seed, one model; noise moves every weight a little."""
    one, two = random_model(2), random_model(2)
    moved = perturbed(random_model(2), seed=3)
    for a, b, c in zip(one.parameters(), two.parameters(), moved.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
