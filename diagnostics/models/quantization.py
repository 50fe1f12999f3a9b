"""Whether a model's weights are whole, as a short stamp: "gguf Q8_0", "bitsandbytes 4-bit", "fp8".

Read from what the files say of themselves, before weights are loaded. A quantised teacher is a
different teacher, so reports print the stamp. What a stamp costs in nats is not measured here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from diagnostics.errors import InputError, require_packages

WHOLE = {"F64", "F32", "F16", "BF16"}  # GGUF types that hold plain numbers
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def config_stamp(config: PreTrainedConfig) -> str | None:
    """The stamp of a folder from its `quantization_config`; None when the weights are whole."""
    found: Any = getattr(config, "quantization_config", None) or getattr(
        config.get_text_config(), "quantization_config", None
    )
    if not found:
        return None
    settings: dict[str, Any] = found if isinstance(found, dict) else found.to_dict()
    flags = {4: settings.get("load_in_4bit"), 8: settings.get("load_in_8bit")}
    method = settings.get("quant_method") or ("bitsandbytes" if any(flags.values()) else "unknown")
    bits = next((bits for bits, flag in flags.items() if flag), None)
    bits = bits or settings.get("bits") or settings.get("w_bit") or _grouped_bits(settings)
    return f"{method} {bits}-bit" if bits else str(method)


def gguf_stamp(path: Path) -> str | None:
    """The stamp of a GGUF file from its tensors' types; None when they are plain numbers.

    Raises InputError when the file is damaged, or scales its rotary positions in a way that
    transformers does not read from GGUF: its numbers would be wrong without a word.
    """
    require_packages("gguf", "gguf", "accelerate", where=str(path))
    from gguf import GGUFReader, LlamaFileType

    try:
        reader = GGUFReader(path)
        fields, tensors = reader.fields, reader.tensors
        sizes: dict[str, int] = {}
        for tensor in tensors:
            kind = tensor.tensor_type.name
            sizes[kind] = sizes.get(kind, 0) + int(tensor.n_elements)
        field = fields.get("general.file_type")
        declared = LlamaFileType(field.contents()).name.removeprefix("MOSTLY_") if field else ""
    except Exception as error:  # the reader raises ValueError, IndexError, KeyError, Unicode errors
        raise InputError(
            where=str(path),
            expected="a whole GGUF file",
            got=" ".join(f"{type(error).__name__}: {error}".split())[:160],
            fix="download or convert it again",
        ) from error
    _check_rope(path, fields, [tensor.name for tensor in tensors])
    packed = {kind: size for kind, size in sizes.items() if kind not in WHOLE}
    if not packed:
        return None
    most = max(packed, key=lambda kind: packed[kind])
    told = declared and declared not in {*WHOLE, "ALL_F32", "GUESSED"}
    return f"gguf {declared if told else most}"


def _check_rope(path: Path, fields: Any, tensors: list[str]) -> None:
    """Refuses rotary scaling, which transformers drops when it reads a GGUF file."""
    scaling = [name for name in fields if name.endswith(".rope.scaling.type")]
    kinds = [fields[name].contents() for name in scaling]
    found = [name for name in ROPE_TENSORS if name in tensors]
    found += [f"{name}={kind}" for name, kind in zip(scaling, kinds, strict=True) if kind != "none"]
    architecture = fields.get("general.architecture")
    reads_it = architecture is not None and architecture.contents() == "gpt-oss"
    if found and not reads_it:
        raise InputError(
            where=str(path),
            expected="rotary positions without scaling, all that transformers reads from GGUF",
            got=found[0],
            fix="give the model as safetensors",
        )


def _grouped_bits(settings: dict[str, Any]) -> int | None:
    """Bits of the weights in compressed-tensors' groups, where they all agree."""
    groups = settings.get("config_groups") or {}
    bits = {(group.get("weights") or {}).get("num_bits") for group in groups.values()}
    return bits.pop() if len(bits) == 1 else None
