"""What is known of a model before its weights are loaded: files, configuration, tokenizer.

A MODEL is named by a local folder or a Hub id (`name@revision`). Everything that can be refused is
refused here, before gigabytes move: missing weights, pickled weights, vocabularies that differ.
Not covered yet: adapters (`BASE+ADAPTER`) and GGUF files, which are refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from diagnostics.errors import InputError
from diagnostics.files import sha256_file, sha256_text

WEIGHTS = "*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk, weights not loaded.

    Fields: `spec` as the user wrote it; `folder` where its files lie; `config`; `tokenizer`, None
    for a checkpoint that has none of its own; `fingerprint` SHA-256 over configuration and weights.
    """

    spec: str
    folder: Path
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    fingerprint: str

    @property
    def vocabulary(self) -> int:
        """Rows of the output head: the width of the logits."""
        return int(self.config.get_text_config().vocab_size)


def open_model(spec: str) -> ModelFiles:
    """Finds a model by its name.

    Raises InputError when it is not there, has no safetensors weights, or takes a form that is not
    supported.
    """
    folder = _locate(spec)
    weights = sorted(folder.glob(WEIGHTS))
    if not (folder / "config.json").is_file() or not weights:
        present = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "an empty folder"
        raise InputError(
            where=spec,
            expected="a model folder with config.json and safetensors weights",
            got=present,
            fix="save the model with `save_pretrained`",
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            where=str(folder / "config.json"),
            expected="a configuration that transformers knows",
            got=str(error).splitlines()[0],
            fix="update transformers, or check the file",
        ) from error
    parts = [f"{p.name}:{sha256_file(p)}" for p in [folder / "config.json", *weights]]
    return ModelFiles(
        spec=spec,
        folder=folder,
        config=config,
        tokenizer=_load_tokenizer(folder),
        fingerprint=sha256_text("\n".join(parts)),
    )


def require_tokenizer(model: ModelFiles) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises InputError when the folder has none."""
    if model.tokenizer is None:
        raise InputError(
            where=model.spec,
            expected="a tokenizer beside the weights",
            got="none",
            fix="save it into the folder with `tokenizer.save_pretrained`",
        )
    return model.tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the token-to-id table."""
    return sha256_text(json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda kv: kv[1])))


def check_shared_vocabulary(first: ModelFiles, second: ModelFiles) -> None:
    """Refuses two models whose ids do not mean the same tokens, naming the first that differs.

    A model without a tokenizer of its own is compared by the width of its logits alone.
    """
    where = f"{first.spec} and {second.spec}"
    if first.tokenizer is not None and second.tokenizer is not None:
        tokens = [
            {i: t for t, i in m.get_vocab().items()} for m in (first.tokenizer, second.tokenizer)
        ]
        for index in sorted(tokens[0].keys() | tokens[1].keys()):
            left, right = tokens[0].get(index), tokens[1].get(index)
            if left != right:
                raise InputError(
                    where=where,
                    expected="one shared vocabulary",
                    got=f"token id {index} = {left!r} in the first, {right!r} in the second",
                    fix="choose two models of one tokenizer",
                )
    if first.vocabulary != second.vocabulary:
        raise InputError(
            where=where,
            expected="logits of one width",
            got=f"{first.vocabulary} and {second.vocabulary}",
            fix="choose two models of one vocabulary size",
        )


def check_top_k(k: int, model: ModelFiles) -> None:
    """Refuses a support size that a model's vocabulary does not have."""
    if not 1 <= k <= model.vocabulary:
        raise InputError(
            where="--top-k",
            expected=f"1 to {model.vocabulary}, the size of the vocabulary",
            got=str(k),
            fix="choose a smaller support",
        )


def _locate(spec: str) -> Path:
    path = Path(spec)
    if path.is_dir():
        return path
    if path.suffix == ".gguf" or (not path.exists() and "+" in spec):
        raise InputError(
            where=spec,
            expected="a model folder or a Hub id",
            got="a GGUF file" if path.suffix == ".gguf" else "a base with an adapter",
            fix="save the merged model with `save_pretrained` first",
        )
    if path.exists() or spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise InputError(
            where=spec,
            expected="a model folder or a Hub id (owner/name or owner/name@revision)",
            got="a file" if path.exists() else "no such folder",
            fix="check the path",
        )
    return _download(spec)


def _download(spec: str) -> Path:
    """Fetches (or finds in the local cache) a model of the Hub: weights as safetensors only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = spec.partition("@")
    patterns = ["*.json", WEIGHTS, "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise InputError(
            where=spec,
            expected="a model folder, or a model that the Hub has",
            got=str(error).splitlines()[0],
            fix="check the name and the network, or download it and give the folder",
        ) from error


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if not any((folder / name).is_file() for name in names):
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # tokenizers raises bare exceptions, transformers KeyError too
        raise InputError(
            where=str(folder),
            expected="a tokenizer that transformers can read",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:160],
            fix="save it again with `tokenizer.save_pretrained`",
        ) from error
    return tokenizer
