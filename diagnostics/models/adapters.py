"""PEFT adapters over a loaded base: put on and taken off again, never merged, nothing written.

`attach` hangs LoRA or IA3 layers into a model and returns what takes them off: the base's own
modules go back into their places, and no weight of the base is touched meanwhile, so that after it
the base is bit-equal to what was loaded. `effective_head` is the one matrix that an output head
amounts to, adapter included. Kinds that add to the input, change the base's weights or its layers
are refused by name. Not covered: LoRA on bare parameters (fused experts), DoRA on the head.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diagnostics.errors import InputError, require_packages
from diagnostics.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KINDS = ("LORA", "IA3")
# Starts of training that leave the base as it was; others (PiSSA, OLoRA, CorDA, LoftQ, …) move it.
PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
# Settings that act on more than a layer's own product: on the base's layers, parameters or tokens.
REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
MERGE = "merge it with peft's `merge_and_unload` and save the whole model"


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """An adapter's configuration. Raises InputError for a kind that is not supported, by name."""
    path = folder / ADAPTER_CONFIG
    config = read_json(path)
    kind = config.get("peft_type")
    start = config.get("init_lora_weights")
    found = [] if kind in KINDS else [f"peft_type {kind}"]
    found += [f"{name}={config[name]}" for name in REFUSED if config.get(name)]
    found += [f"bias={config['bias']}"] if config.get("bias", "none") != "none" else []
    found += [] if start in PLAIN_STARTS else [f"init_lora_weights={start}, which moves the base"]
    if found:
        raise InputError(
            where=str(path),
            expected=f"an adapter of kind {' or '.join(KINDS)} that leaves its base as it is",
            got=found[0],
            fix=MERGE,
        )
    return config


def attach(model: PreTrainedModel, adapter: Path) -> Callable[[], None]:
    """Hangs an adapter into a loaded base, in place, and returns what takes it off.

    Raises InputError when the adapter does not fit the base; the base is then as it was.
    """
    require_packages("peft", "peft", where=str(adapter))
    if any(parameter.is_meta for parameter in model.parameters()):
        raise InputError(
            where=str(adapter),
            expected="a base that lies whole in the memory of its devices",
            got="a base of which accelerate keeps a part aside",  # PEFT would fill empty layers
            fix=f"use a device with more memory, or {MERGE}",
        )
    places = [(parent, name, child) for parent in model.modules() for name, child in _own(parent)]

    def take_off() -> None:
        for parent, name, child in places:
            if getattr(parent, name) is not child:
                setattr(parent, name, child)
        vars(model).pop("peft_config", None)

    try:
        _hang(model, adapter)
    except BaseException:
        take_off()
        raise
    model.eval()
    return take_off


def _own(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(module.named_children())


def _hang(model: PreTrainedModel, adapter: Path) -> None:
    """Makes the adapter's layers with PEFT and fills every one of them from the file."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they warn of is checked below
            config = PeftConfig.from_pretrained(str(adapter))
            _check_known(adapter, set(type(config).__dataclass_fields__))
            config.base_model_name_or_path, config.task_type = None, None
            config.inference_mode = True
            state = load_file(adapter / ADAPTER_WEIGHTS)
            peft = get_peft_model(model, config)
            wanted = get_peft_model_state_dict(peft, save_embedding_layers=False)
            state = _without_copies(state, wanted, peft)
            _check_names(adapter, set(state), set(wanted))
            set_peft_model_state_dict(peft, state)
    except InputError:
        raise
    except Exception as error:  # peft raises ValueError, safetensors its own, torch RuntimeError
        raise _misfit(adapter, " ".join(str(error).split())[:200]) from error


def _without_copies(
    state: dict[str, Tensor], wanted: dict[str, Tensor], peft: nn.Module
) -> dict[str, Tensor]:
    """The adapter's tensors without exact copies of the base's own.

    PEFT writes the base's embedding and head beside a LoRA on them.
    """
    base = peft.state_dict()

    def copied(name: str, tensor: Tensor) -> bool:
        own = base.get(name)
        if own is None or own.shape != tensor.shape:
            return False
        return bool((own == tensor.to(own.device, own.dtype)).all())

    return {name: t for name, t in state.items() if name in wanted or not copied(name, t)}


def _check_known(adapter: Path, known: set[str]) -> None:
    """Refuses a setting that this peft would drop without applying it."""
    config = read_adapter_config(adapter)
    known = known | {"auto_mapping", "runtime_config"}
    if unknown := sorted(name for name, value in config.items() if value and name not in known):
        raise InputError(
            where=str(adapter / ADAPTER_CONFIG),
            expected="settings that the installed peft knows",
            got=f"{unknown[0]}={config[unknown[0]]}",
            fix="pip install -U peft",
        )


def _check_names(adapter: Path, found: set[str], wanted: set[str]) -> None:
    if missing := sorted(wanted - found):
        raise _misfit(adapter, f"no weights for {missing[0]}")
    if unknown := sorted(found - wanted):
        raise _misfit(adapter, f"weights for {unknown[0]}, which is no part of an adapter over it")


def _misfit(adapter: Path, got: str) -> InputError:
    return InputError(
        where=str(adapter),
        expected="an adapter that fits its base",
        got=got,
        fix="check that BASE is the model it was trained on, with as many tokens",
    )


def effective_head(model: PreTrainedModel, name: str) -> tuple[Tensor, Tensor | None]:
    """The matrix (vocab, hidden) and bias (vocab,) or None that a model's output head amounts to.

    A plain head, and a head that an adapter holds whole, are given as they are. For a LoRA on the
    head the module computes x W^T + s (x A^T) B^T, so the matrix is W + s B A, in float32. `name`
    names the model in errors. Raises InputError for heads that are no one matrix of plain numbers.
    """
    module = model.get_output_embeddings()
    if hasattr(module, "modules_to_save"):
        module = module.modules_to_save[module.active_adapters[0]]
    if not hasattr(module, "lora_A"):
        return _plain_head(module, name)
    if getattr(module, "lora_variant", None):
        raise _no_matrix("a variant of LoRA on the head (DoRA or another)", name)
    weight, bias = _plain_head(module.base_layer, name)
    for adapter in module.active_adapters:
        up, down, scale = module.lora_B[adapter], module.lora_A[adapter], module.scaling[adapter]
        weight = weight + scale * (up.weight.float() @ down.weight.float()).to(weight.device)
        if up.bias is not None:
            extra = scale * up.bias.float().to(weight.device)
            bias = extra if bias is None else bias.float() + extra
    return weight.detach(), None if bias is None else bias.detach()


def _plain_head(module: nn.Module | None, name: str) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a linear layer, live; copies where accelerate keeps them elsewhere."""
    import torch

    if hasattr(module, "base_layer"):
        raise _no_matrix("an adapter on the head that is no LoRA", name)
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if getattr(weight, "is_meta", False):
        weight, bias = _fetched(module)
    plain = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or weight.dtype not in plain:
        raise _no_matrix(f"a {type(module).__name__} as the head", name)
    if weight.is_meta:
        raise _no_matrix("a head whose weights were moved off the devices", name)
    return weight.detach(), None if bias is None else bias.detach()


def _fetched(module: Any) -> tuple[Tensor, Tensor | None]:
    """Copies of the weight and bias that accelerate brings in for a forward pass alone."""
    from accelerate.utils import align_module_device

    with align_module_device(module):
        bias = getattr(module, "bias", None)
        return module.weight.detach().clone(), None if bias is None else bias.detach().clone()


def _no_matrix(got: str, name: str) -> InputError:
    return InputError(
        where=name,
        expected="an output head that is one matrix of plain numbers",
        got=got,
        fix="merge the adapter or dequantise the head, and save the whole model",
    )
