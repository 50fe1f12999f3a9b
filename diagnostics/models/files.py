"""What is known of a model before its weights are loaded: files, configuration, tokenizer.

A MODEL is a local folder, a Hub id (`name@revision`), a GGUF file, or one of these with a PEFT
adapter as `BASE+ADAPTER`; an adapter alone names its base itself. Everything that can be refused is
refused here, before gigabytes move: missing weights, pickled weights, adapters of a kind that is
not supported, vocabularies that differ. Not covered: GGUF files on the Hub, remote code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from diagnostics.errors import InputError
from diagnostics.files import read_json, sha256_file, sha256_text
from diagnostics.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, read_adapter_config
from diagnostics.models.quantization import config_stamp, gguf_stamp

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
NAMED = "a model folder, a GGUF file or a Hub id (owner/name or owner/name@revision)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk, weights not loaded.

    Fields: `spec` as the user wrote it; `folder` where its files lie (with an adapter: its base's);
    `config`; `tokenizer`, None for a checkpoint that has none of its own; `fingerprint` SHA-256
    over configuration and weights, adapter included; `base_fingerprint` the same of the base alone,
    so that models of one base can share it; `weights` the files that hold them, the adapter's last;
    `gguf` name of the GGUF file in `folder`; `adapter` folder of the adapter; `quantization` a
    stamp such as "gguf Q8_0" or "bitsandbytes 4-bit", None when the weights are whole.
    """

    spec: str
    folder: Path
    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    fingerprint: str
    base_fingerprint: str
    weights: tuple[Path, ...]
    gguf: str | None = None
    adapter: Path | None = None
    quantization: str | None = None

    @property
    def vocabulary(self) -> int:
        """Rows of the output head: the width of the logits."""
        return int(self.config.get_text_config().vocab_size)


def open_model(spec: str) -> ModelFiles:
    """Finds a model by its name.

    Raises InputError when it is not there, has no safetensors weights, lacks a shard, or takes a
    form that is not supported.
    """
    base, adapter = split_adapter(spec)
    path = _locate(base)
    if adapter is not None:
        return _add_adapter(spec, _open_whole(base, path), _locate(adapter))
    if _is_adapter(path):
        return _add_adapter(spec, _open_named_base(path), path)
    return _open_whole(spec, path)


def split_adapter(spec: str) -> tuple[str, str | None]:
    """BASE and ADAPTER of `BASE+ADAPTER`; (spec, None) where there is no adapter.

    A path may itself hold a `+`: what exists wins, first the whole, then the cut that leaves most
    existing paths. Hub ids hold none.
    """
    if "+" not in spec or Path(spec).exists():
        return spec, None
    cuts = [(spec[:i], spec[i + 1 :]) for i, letter in enumerate(spec) if letter == "+"]
    base, adapter = max(cuts, key=lambda cut: sum(bool(p) and Path(p).exists() for p in cut))
    return base, adapter


def _open_whole(spec: str, path: Path) -> ModelFiles:
    """A folder or a GGUF file. Raises InputError for an adapter in the place of a base."""
    if path.is_file():
        return _open_gguf(spec, path)
    weights = _weight_files(path)
    if not (path / "config.json").is_file() or not weights:
        raise InputError(
            where=spec,
            expected="a model folder with config.json and safetensors weights",
            got=_listing(path),
            fix="save the model with `save_pretrained`",
        )
    if (path / ADAPTER_CONFIG).is_file():
        raise InputError(
            where=spec,
            expected="a whole model or an adapter",
            got=f"both in one folder ({weights[0].name} and {ADAPTER_CONFIG})",
            fix="move one of them into a folder of its own",
        )
    config = _load_config(path)
    content = [f"{p.name}:{d}" for p, d in _digests([path / "config.json", *weights])]
    fingerprint = sha256_text("\n".join(content))
    return ModelFiles(
        spec=spec,
        folder=path,
        config=config,
        tokenizer=_load_tokenizer(path),
        fingerprint=fingerprint,
        base_fingerprint=fingerprint,
        weights=tuple(weights),
        quantization=config_stamp(config),
    )


def _open_gguf(spec: str, path: Path) -> ModelFiles:
    """A GGUF file: configuration and tokenizer come from it too."""
    [(_, digest)] = _digests([path])
    config, tokenizer, quantization = _read_gguf(path, digest)
    fingerprint = sha256_text(f"gguf:{digest}")
    return ModelFiles(
        spec=spec,
        folder=path.parent,
        config=config,
        tokenizer=tokenizer,
        fingerprint=fingerprint,
        base_fingerprint=fingerprint,
        weights=(path,),
        gguf=path.name,
        quantization=quantization,
    )


@lru_cache(maxsize=4)
def _read_gguf(
    path: Path, digest: str
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase | None, str | None]:
    """Configuration, tokenizer and stamp of one content; the readers take seconds a pass."""
    stamp = gguf_stamp(path)
    return _load_config(path.parent, path.name), _load_tokenizer(path.parent, path.name), stamp


def _open_named_base(adapter: Path) -> ModelFiles:
    """The base that an adapter's configuration names: a Hub id, or a path from here."""
    config = read_adapter_config(adapter)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if revision and name and not Path(name).exists():
        name = f"{name}@{revision}"
    try:
        path = _locate(name or "")
    except InputError as error:
        raise InputError(
            where=str(adapter / ADAPTER_CONFIG),
            expected="base_model_name_or_path to be a Hub id or a path from the current folder",
            got=f"{name!r} ({error.got})",
            fix=f"name the base yourself: BASE+{adapter}",
        ) from error
    return _open_whole(str(name), path)


def _add_adapter(spec: str, base: ModelFiles, adapter: Path) -> ModelFiles:
    """A base with an adapter; the tokenizer is the adapter's own where it has one."""
    files = [adapter / ADAPTER_CONFIG, adapter / ADAPTER_WEIGHTS]
    if not all(file.is_file() for file in files):
        raise InputError(
            where=str(adapter),
            expected=f"an adapter folder with {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}",
            got=_listing(adapter),
            fix="save the adapter with `save_pretrained`",
        )
    read_adapter_config(adapter)
    content = [base.fingerprint, *(f"{p.name}:{d}" for p, d in _digests(files))]
    return replace(
        base,
        spec=spec,
        tokenizer=_load_tokenizer(adapter) or base.tokenizer,
        fingerprint=sha256_text("\n".join(content)),
        weights=(*base.weights, files[1]),
        adapter=adapter,
    )


def require_trainable(model: ModelFiles) -> None:
    """Refuses what cannot be trained as whole weights: an adapter, or a quantised folder.

    A GGUF file is unpacked when it is loaded, so it can be. Raises InputError.
    """
    if model.adapter is not None or (model.quantization is not None and model.gguf is None):
        raise InputError(
            where=model.spec,
            expected="a student with whole weights",
            got="an adapter" if model.adapter else f"{model.quantization} weights",
            fix="merge or dequantise it and save the whole model",
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


def open_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a MODEL, or of a folder that holds nothing else; weights are not fetched.

    An adapter's own comes before its base's. Raises InputError when there is none.
    """
    base, adapter = split_adapter(spec)
    for part in filter(None, (adapter, base)):
        path = _locate(part, weights=False)
        folder, gguf = (path.parent, path.name) if path.is_file() else (path, None)
        tokenizer = _load_tokenizer(folder, gguf)
        if tokenizer is not None:
            return tokenizer
    raise InputError(
        where=spec,
        expected="a tokenizer",
        got="none",
        fix="save it into the folder with `tokenizer.save_pretrained`, or name its model",
    )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over the token-to-id table."""
    return sha256_text(json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda kv: kv[1])))


def check_shared_vocabulary(first: ModelFiles, second: ModelFiles) -> None:
    """Refuses two models whose ids do not mean the same tokens, naming the first that differs.

    One table may go on where the other ends: those ids are padding to the other. Heads may differ
    in width (`shared_vocabulary` is what both have). A model without a tokenizer of its own is not
    compared. Raises InputError.
    """
    tokenizers = [model.tokenizer for model in (first, second) if model.tokenizer is not None]
    if len(tokenizers) < 2:
        return
    left, right = ({i: t for t, i in one.get_vocab().items()} for one in tokenizers)
    shared = range(min(max(left, default=-1), max(right, default=-1)) + 1)
    differing = [index for index in shared if left.get(index) != right.get(index)]
    if differing:
        index = differing[0]
        raise InputError(
            where=f"{first.spec} and {second.spec}",
            expected="one shared vocabulary",
            got=f"token id {index} = {left.get(index)!r} in the first, {right.get(index)!r} in the "
            f"second; {len(differing)} of {len(shared)} ids differ",
            fix="choose two models of one tokenizer",
        )


def shared_vocabulary(models: Sequence[ModelFiles]) -> int:
    """Ids that the heads of all models have: the fewest rows. Logits beyond are padding."""
    return min(model.vocabulary for model in models)


def check_one_width(first: ModelFiles, second: ModelFiles) -> None:
    """Refuses heads of two widths, for callers that do not cut them to the shared range."""
    if first.vocabulary != second.vocabulary:
        raise InputError(
            where=f"{first.spec} and {second.spec}",
            expected="logits of one width",
            got=f"{first.vocabulary} and {second.vocabulary}",
            fix="choose two models of one vocabulary size",
        )


def check_top_k(k: int, vocabulary: int) -> None:
    """Refuses a support size that a vocabulary of so many ids does not have."""
    if not 1 <= k <= vocabulary:
        raise InputError(
            where="--top-k",
            expected=f"1 to {vocabulary}, the size of the vocabulary",
            got=str(k),
            fix="choose a smaller support",
        )


def _is_adapter(path: Path) -> bool:
    """Whether a folder holds an adapter and no whole model (a config.json alone is none)."""
    return (path / ADAPTER_CONFIG).is_file() and not _weight_files(path)


def _listing(path: Path) -> str:
    """What lies in a folder, for messages."""
    if path.is_file():
        return "a file"
    return ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "an empty folder"


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a whole model: one, or the shards that its index names.

    Raises InputError when a shard is missing, naming it.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        return []
    table = read_json(index).get("weight_map")
    names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    missing = [name for name in names if not (folder / name).is_file()]
    if missing or not names:
        raise InputError(
            where=str(index),
            expected=f"the {len(names)} weight files that it names" if names else "a weight_map",
            got=f"{len(names) - len(missing)} of them, {missing[0]} missing" if names else "none",
            fix="copy or download the model again",
        )
    return [folder / name for name in names]


def _digests(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """SHA-256 of each file, several at a time; a file that did not change is read once."""

    def digest(path: Path) -> str:
        stat = path.stat()
        return _digest(path.resolve(), stat.st_ino, stat.st_size, stat.st_mtime_ns)

    with ThreadPoolExecutor() as pool:
        return list(zip(paths, pool.map(digest, paths), strict=True))


@lru_cache(maxsize=4096)
def _digest(path: Path, inode: int, size: int, changed: int) -> str:
    return sha256_file(path)


def _load_config(folder: Path, gguf: str | None = None) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **_gguf_option(gguf))
    except Exception as error:  # OSError and ValueError of a folder; readers of GGUF raise any
        if gguf is None and not isinstance(error, OSError | ValueError):
            raise
        raise InputError(
            where=str(folder / (gguf or "config.json")),
            expected="a configuration that transformers knows",
            got=" ".join(str(error).split())[:160] if gguf else str(error).splitlines()[0],
            fix="update transformers, or check the file",
        ) from error
    return config


def _gguf_option(gguf: str | None) -> dict[str, str]:
    return {} if gguf is None else {"gguf_file": gguf}


def _locate(spec: str, *, weights: bool = True) -> Path:
    """The folder or the GGUF file of a name; a Hub id is fetched, on request without weights."""
    path = Path(spec)
    if spec and (path.is_dir() or (path.suffix == ".gguf" and path.is_file())):
        return path
    named = spec.startswith((".", "/", "~")) or spec.count("/") != 1 or path.suffix == ".gguf"
    if path.exists() or named:
        raise InputError(
            where=spec or "a model's name",
            expected=NAMED,
            got="a file" if path.is_file() else "no such folder or file",
            fix="check the path",
        )
    return _download(spec, weights=weights)


def _download(spec: str, *, weights: bool) -> Path:
    """Fetches (or finds in the local cache) a model of the Hub: weights as safetensors only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = spec.partition("@")
    patterns = ["*.json", "*.txt", "*.model", "*.jinja", *["*.safetensors"] * weights]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise InputError(
            where=spec,
            expected="a model folder, or a model that the Hub has",
            got=str(error).splitlines()[0],
            fix="check the name and the network, or download it and give the folder",
        ) from error


def _load_tokenizer(folder: Path, gguf: str | None = None) -> PreTrainedTokenizerBase | None:
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    if gguf is None and not any((folder / name).is_file() for name in names):
        return None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, **_gguf_option(gguf)
        )
    except Exception as error:  # tokenizers raises bare exceptions, transformers KeyError too
        raise InputError(
            where=str(folder / (gguf or "")),
            expected="a tokenizer that transformers can read",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:160],
            fix="give the model as safetensors"
            if gguf
            else "save it again with `tokenizer.save_pretrained`",
        ) from error
    return tokenizer
