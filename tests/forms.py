"""The other forms that a model takes, made tiny: GGUF files, adapters, quantised folders.

Each comes with its truth from outside the package: the network whose weights were written, or
PEFT's own wrapped model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import torch
from doubles import END, PAD, SPECIAL, UNKNOWN, VOCABULARY, WORDS, random_model, save
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

if TYPE_CHECKING:
    from peft import PeftConfig

IDS = torch.tensor([[6, 7, 8, 9, 10]])


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    """(ids, vocab) at `IDS`."""
    return model(IDS).logits[0]


def qwen2(seed: int, *, tied: bool = False, layers: int = 2) -> Qwen2ForCausalLM:
    """A random network of an architecture that GGUF describes in full; rows of 32 or 64 numbers."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        initializer_range=1.5 / math.sqrt(32),
        tie_word_embeddings=tied,
        eos_token_id=END,
        pad_token_id=PAD,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config).float().eval()


def write_gguf(
    model: Qwen2ForCausalLM,
    path: Path,
    kind: str = "F32",
    *,
    without: str | None = None,
    extra: Callable[[gguf.GGUFWriter], object] = lambda writer: None,
) -> str:
    """A network and the word tokenizer's table as a GGUF file, matrices as `kind`."""
    config = model.config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    types = {"F32": gguf.LlamaFileType.ALL_F32, "F16": gguf.LlamaFileType.MOSTLY_F16}
    writer.add_file_type(types.get(kind, gguf.LlamaFileType.MOSTLY_Q8_0))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*SPECIAL, *WORDS])
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(WORDS))  # 3: control, 1: normal
    writer.add_token_scores([0.0] * VOCABULARY)  # stand in for merges: the words have none
    writer.add_eos_token_id(END)
    writer.add_pad_token_id(PAD)
    writer.add_unk_token_id(UNKNOWN)
    extra(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if (config.tie_word_embeddings and name == "lm_head.weight") or name == without:
            continue
        stem, ending = name.rsplit(".", 1)
        packed = gguf.GGMLQuantizationType[kind] if tensor.ndim == 2 else None
        values = tensor.numpy()
        if packed is not None and kind != "F32":
            values = gguf.quants.quantize(values, packed)
        writer.add_tensor(f"{names.get_name(stem)}.{ending}", values, raw_dtype=packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def unpack_q8_0(values: np.ndarray) -> np.ndarray:
    """What Q8_0 keeps of a matrix: blocks of 32 numbers as one float16 scale and 32 bytes.

    scale = max |x| / 127, byte = x / scale rounded half away from zero, number = scale * byte.
    """
    blocks = values.astype(np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    ratio = blocks / np.where(scale == 0, 1, scale)
    whole = np.sign(ratio) * np.floor(np.abs(ratio) + 0.5)
    return (scale.astype(np.float16).astype(np.float32) * whole).reshape(values.shape)


def adapter_over(
    base: PreTrainedModel, folder: Path, config: PeftConfig, *, seed: int = 0, named: str = "base"
) -> Tensor:
    """Saves a made-up trained adapter over a base; returns the logits that PEFT itself gives."""
    from peft import get_peft_model  # takes seconds to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to trainers
        model = get_peft_model(base, config)
        noise = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=noise))
        model.peft_config["default"].base_model_name_or_path = named
        model.eval().save_pretrained(folder)
    return logits(model)


def base_model(*, tied: bool = False) -> PreTrainedModel:
    """The base of the adapters: two layers, the same at every call."""
    return random_model(2, layers=2, tied=tied)


def save_base(folder: Path, *, tied: bool = False) -> str:
    """`base_model` on disk, without a tokenizer."""
    return save(base_model(tied=tied), folder, None)
