"""Adapters over a base: PEFT's own numbers, no trace left behind, one matrix as the head."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import WORDS, copy, random_model, save, word_tokenizer
from forms import IDS, adapter_over, base_model, logits, qwen2, save_base, write_gguf
from peft import IA3Config, LoraConfig, PrefixTuningConfig
from safetensors.torch import load_file, save_file

from diagnostics.errors import InputError
from diagnostics.models.adapters import attach, effective_head
from diagnostics.models.files import open_model, require_tokenizer, split_adapter
from diagnostics.models.heads import head_of
from diagnostics.models.weights import Loader, final_hidden, load_weights

Q = ["q_proj"]
KINDS: dict[str, Callable[[], Any]] = {
    "lora": lambda: LoraConfig(
        r=4, target_modules=["q_proj", "v_proj", "up_proj"], lora_dropout=0.5
    ),
    "every-layer-rslora": lambda: LoraConfig(r=4, target_modules="all-linear", use_rslora=True),
    "dora": lambda: LoraConfig(r=4, target_modules=Q, use_dora=True),
    "ranks": lambda: LoraConfig(r=2, target_modules=Q, rank_pattern={"layers.1": 3}),
    "embeddings": lambda: LoraConfig(r=4, target_modules=["embed_tokens"]),
    "head": lambda: LoraConfig(r=4, target_modules=[*Q, "lm_head"]),
    "head-with-bias": lambda: LoraConfig(r=4, target_modules=["lm_head"], lora_bias=True),
    "tied-lora": lambda: LoraConfig(
        r=4, target_modules=["embed_tokens"], ensure_weight_tying=True
    ),
    "own-head": lambda: LoraConfig(r=4, target_modules=Q, modules_to_save=["lm_head"]),
    "own-embeddings": lambda: LoraConfig(r=4, target_modules=Q, modules_to_save=["embed_tokens"]),
    "own-both": lambda: LoraConfig(
        r=4, target_modules=Q, modules_to_save=["embed_tokens", "lm_head"]
    ),
    "own-tied": lambda: LoraConfig(
        r=4, target_modules=Q, modules_to_save=["embed_tokens"], ensure_weight_tying=True
    ),
    "ia3": lambda: IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
}  # fmt: skip
SWAPPED = ("lora", "dora", "head", "own-both", "embeddings", "ia3")  # what each kind could leave
HEAD_TOLERANCE = 1e-5  # x W^T + s (x A^T) B^T against x (W + s B A)^T, float32, logits of size 10


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def tied(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def base(tied: bool, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_base(tmp_path_factory.mktemp("base") / "m", tied=tied)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untied base."""
    return save_base(tmp_path_factory.mktemp("plain") / "m")


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A plain LoRA over the untied base."""
    adapter_over(base_model(), tmp_path / "lora", KINDS["lora"]())
    return tmp_path / "lora"


def refused(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        load_weights(open_model(spec), "float32", "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(adapter: Path, **changes: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_gives_pefts_own_logits(base: str, tied: bool, tmp_path: Path, kind: str) -> None:
    truth = adapter_over(base_model(tied=tied), tmp_path / "a", KINDS[kind]())
    model = load_weights(open_model(f"{base}+{tmp_path / 'a'}"), "float32", "cpu")
    assert not model.training
    assert torch.equal(logits(model), truth)
    assert not torch.allclose(truth, logits(base_model(tied=tied)), atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_times_the_effective_head_are_the_logits(
    base: str, tied: bool, tmp_path: Path, kind: str
) -> None:
    truth = adapter_over(base_model(tied=tied), tmp_path / "a", KINDS[kind]())
    model = load_weights(open_model(f"{base}+{tmp_path / 'a'}"), "float32", "cpu")
    with torch.no_grad():
        hidden = final_hidden(model, IDS, torch.ones_like(IDS))[0]
        weight, bias = effective_head(model, "m")
        found = hidden @ weight.T if bias is None else hidden @ weight.T + bias
        head = head_of(model, "m")
    assert torch.allclose(found, truth, rtol=0, atol=HEAD_TOLERANCE)
    assert torch.allclose(head.logits(hidden), truth, rtol=0, atol=HEAD_TOLERANCE)


def test_effective_head_of_a_bfloat16_base_keeps_the_sum_in_float32(
    plain: str, tmp_path: Path
) -> None:
    adapter_over(base_model(), tmp_path / "a", KINDS["head"]())
    stored = load_file(tmp_path / "a" / "adapter_model.safetensors")
    start = "base_model.model.lm_head.lora_"
    scale = 8 / 4  # lora_alpha / r
    delta = stored[f"{start}B.weight"].double() @ stored[f"{start}A.weight"].double() * scale
    model = load_weights(open_model(f"{plain}+{tmp_path / 'a'}"), "bfloat16", "cpu")
    weight, bias = effective_head(model, "m")
    assert (weight.dtype, bias) == (torch.float32, None)
    truth = base_model().lm_head.weight.bfloat16().double() + delta
    assert torch.allclose(weight.double(), truth, rtol=0, atol=1e-6)


def test_effective_head_of_a_plain_model_is_its_own(plain: str) -> None:
    model = load_weights(open_model(plain), "bfloat16", "cpu")
    weight, bias = effective_head(model, "m")
    assert weight.data_ptr() == model.lm_head.weight.data_ptr()
    assert bias is None


@pytest.mark.parametrize(
    ("config", "got"),
    [
        (
            lambda: LoraConfig(r=4, target_modules=["lm_head"], use_dora=True),
            "a variant of LoRA on the head (DoRA or another)",
        ),
        (
            lambda: IA3Config(target_modules=["lm_head"], feedforward_modules=[]),
            "an adapter on the head that is no LoRA",
        ),
    ],
)
def test_heads_that_are_no_one_matrix_are_refused(
    plain: str, tmp_path: Path, config: Callable[[], Any], got: str
) -> None:
    adapter_over(base_model(), tmp_path / "a", config())
    model = load_weights(open_model(f"{plain}+{tmp_path / 'a'}"), "float32", "cpu")
    with pytest.raises(InputError) as caught:
        effective_head(model, "m")
    assert str(caught.value) == (
        "m: expected an output head that is one matrix of plain numbers, "
        f"got {got}; merge the adapter or dequantise the head, and save the whole model"
    )


def test_second_adapter_is_bit_equal_to_itself_alone_and_so_is_the_base(
    base: str, tied: bool, tmp_path: Path
) -> None:
    """Every kind after every other, over one base that is loaded once."""
    truth = {
        kind: adapter_over(base_model(tied=tied), tmp_path / kind, KINDS[kind](), seed=seed)
        for seed, kind in enumerate(SWAPPED)
    }
    files = {kind: open_model(f"{base}+{tmp_path / kind}") for kind in SWAPPED}
    bare, alone = open_model(base), logits(base_model(tied=tied))
    with Loader("float32", "cpu") as loader:
        first = loader.load(files["lora"])
        for kind in (*SWAPPED, *reversed(SWAPPED)):
            model = loader.load(files[kind])
            assert model is first, "the base was loaded again"
            assert torch.equal(logits(model), truth[kind]), kind
        model = loader.load(bare)
        assert model is first
        assert torch.equal(logits(model), alone)


def test_base_after_adapters_is_what_was_loaded(base: str, tied: bool, tmp_path: Path) -> None:
    for kind in SWAPPED:
        adapter_over(base_model(tied=tied), tmp_path / kind, KINDS[kind]())
    with Loader("float32", "cpu") as loader:
        model = loader.load(open_model(base))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        modules, attributes = dict(model.named_modules()), set(vars(model))
        for kind in SWAPPED:
            loader.load(open_model(f"{base}+{tmp_path / kind}"))
        assert loader.load(open_model(base)) is model
        assert dict(model.named_modules()) == modules
        assert set(vars(model)) == attributes
        after = model.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], before[name]) for name in before)


def test_loader_takes_another_base_when_it_must(plain: str, tmp_path: Path, student: str) -> None:
    truth = adapter_over(base_model(), tmp_path / "a", KINDS["lora"]())
    with Loader("float32", "cpu") as loader:
        first = loader.load(open_model(f"{plain}+{tmp_path / 'a'}"))
        other = loader.load(open_model(student))
        assert other is not first
        again = loader.load(open_model(f"{plain}+{tmp_path / 'a'}"))
        assert torch.equal(logits(again), truth)


def test_base_that_changed_on_disk_is_loaded_again(plain: str, tmp_path: Path) -> None:
    """What counts is the content, not the path."""
    folder = copy(plain, tmp_path / "m")
    with Loader("float32", "cpu") as loader:
        loader.load(open_model(str(folder)))
        shutil.rmtree(folder)
        save(random_model(9, layers=2), folder, None)
        found = loader.load(open_model(str(folder)))
        assert torch.equal(logits(found), logits(random_model(9, layers=2)))


def test_refused_adapter_leaves_the_base_as_it_was(plain: str, lora: Path, tmp_path: Path) -> None:
    tensors = load_file(lora / "adapter_model.safetensors")
    bad = copy(str(lora), tmp_path / "bad")
    name = sorted(tensors)[-1]
    save_file({k: t for k, t in tensors.items() if k != name}, bad / "adapter_model.safetensors")
    with Loader("float32", "cpu") as loader:
        modules = dict(loader.load(open_model(plain)).named_modules())
        with pytest.raises(InputError, match="expected an adapter that fits its base"):
            loader.load(open_model(f"{plain}+{bad}"))
        assert dict(loader.load(open_model(plain)).named_modules()) == modules
        assert torch.equal(logits(loader.load(open_model(plain))), logits(base_model()))


def test_nothing_is_written(plain: str, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = open_model(f"{plain}+{lora}")
    folders = [Path(plain), lora]
    before = [sorted((p.name, p.stat().st_mtime_ns) for p in f.iterdir()) for f in folders]
    with Loader("float32", "cpu") as loader:
        loader.load(files)
        loader.load(open_model(plain))
    assert before == [sorted((p.name, p.stat().st_mtime_ns) for p in f.iterdir()) for f in folders]


def test_loading_prints_nothing(
    plain: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("own-both", "head"):
        adapter_over(base_model(), tmp_path / kind, KINDS[kind]())
        capfd.readouterr()
        load_weights(open_model(f"{plain}+{tmp_path / kind}"), "float32", "cpu")
        assert capfd.readouterr() == ("", "")


def test_adapter_over_a_gguf_file(tmp_path: Path) -> None:
    truth = adapter_over(qwen2(1), tmp_path / "a", KINDS["lora"]())
    spec = f"{write_gguf(qwen2(1), tmp_path / 'base.gguf')}+{tmp_path / 'a'}"
    assert torch.equal(logits(load_weights(open_model(spec), "float32", "cpu")), truth)


# --- what is known of them before weights are loaded ---


def test_fingerprint_covers_base_and_adapter(plain: str, lora: Path, tmp_path: Path) -> None:
    base, both = open_model(plain), open_model(f"{plain}+{lora}")
    assert base.fingerprint == base.base_fingerprint == both.base_fingerprint
    assert both.fingerprint != base.fingerprint
    assert (both.adapter, both.folder, base.adapter) == (lora, Path(plain), None)
    same = open_model(f"{copy(plain, tmp_path / 'b')}+{copy(str(lora), tmp_path / 'l')}")
    assert same.fingerprint == both.fingerprint
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        other = copy(str(lora), tmp_path / name)
        with (other / name).open("ab") as stream:
            stream.write(b" ")
        assert open_model(f"{plain}+{other}").fingerprint != both.fingerprint
    moved = save(random_model(9, layers=2), tmp_path / "moved", None)
    assert open_model(f"{moved}+{lora}").fingerprint != both.fingerprint


def test_adapter_alone_names_its_base(
    plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter_over(base_model(), tmp_path / "a", KINDS["lora"](), named=plain)
    alone, both = open_model(str(tmp_path / "a")), open_model(f"{plain}+{tmp_path / 'a'}")
    assert (alone.folder, alone.adapter) == (Path(plain), tmp_path / "a")
    assert alone.fingerprint == both.fingerprint
    save(base_model(), tmp_path / "here" / "base", None)
    monkeypatch.chdir(tmp_path / "here")
    edit(tmp_path / "a", base_model_name_or_path="base")
    assert open_model("../a").folder == Path("base")


def test_configuration_beside_an_adapter_makes_it_no_whole_model(
    plain: str, tmp_path: Path
) -> None:
    """Some trainers save the base's config.json with the adapter."""
    adapter_over(base_model(), tmp_path / "a", KINDS["lora"](), named=plain)
    shutil.copy(Path(plain) / "config.json", tmp_path / "a")
    assert open_model(str(tmp_path / "a")).adapter == tmp_path / "a"


@pytest.mark.parametrize("name", ["/nobody/here", "nobody", None])
def test_named_base_that_is_not_there_is_refused(lora: Path, name: str | None) -> None:
    edit(lora, base_model_name_or_path=name)
    assert refused(str(lora)) == (
        f"{lora}/adapter_config.json: expected base_model_name_or_path to be a Hub id or a path "
        f"from the current folder, got {name!r} (no such folder or file); "
        f"name the base yourself: BASE+{lora}"
    )


def test_named_base_of_the_hub_has_its_revision(
    plain: str, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fake(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        return plain

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    edit(lora, base_model_name_or_path="owner/base", revision="v2")
    assert open_model(str(lora)).folder == Path(plain)
    assert open_model(f"owner/base@v1+{lora}").adapter == lora
    assert asked == [("owner/base", "v2"), ("owner/base", "v1")]


def test_adapter_may_come_from_the_hub(
    plain: str, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"owner/base": plain, "owner/lora": str(lora)}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: found[name])
    files = open_model("owner/base@main+owner/lora@step-5")
    assert (files.folder, files.adapter) == (Path(plain), lora)


@pytest.mark.parametrize(
    ("spec", "cut"),
    [
        ("base+lora", ("base", "lora")),
        ("a+b", ("a+b", None)),
        ("a+b+lora", ("a+b", "lora")),
        ("base+x+y", ("base", "x+y")),
        ("owner/base+x+y", ("owner/base", "x+y")),
        ("owner/base@main+owner/lora", ("owner/base@main", "owner/lora")),
        ("owner/base+no/such+path", ("owner/base", "no/such+path")),
        ("base", ("base", None)),
        ("base+", ("base", "")),
        ("+lora", ("", "lora")),
    ],
)
def test_existing_paths_decide_where_the_adapter_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, cut: tuple[str, str | None]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "lora", "a+b", "x+y"):
        Path(name).mkdir()
    assert split_adapter(spec) == cut


@pytest.mark.parametrize("spec", ["{plain}+", "+{lora}"])
def test_missing_half_is_refused(plain: str, lora: Path, spec: str) -> None:
    said = refused(spec.format(plain=plain, lora=lora))
    assert said.startswith("a model's name: expected a model folder, a GGUF file or a Hub id ")


def test_tokenizer_is_the_adapters_own_where_it_has_one(
    lora: Path, student: str, tmp_path: Path
) -> None:
    base = save(base_model(), tmp_path / "b", word_tokenizer())
    assert require_tokenizer(open_model(f"{base}+{lora}")).get_vocab()["w3"] == 9
    word_tokenizer(["other", *WORDS[1:]]).save_pretrained(lora)
    assert require_tokenizer(open_model(f"{base}+{lora}")).get_vocab()["other"] == 6


# --- what is refused ---


def test_adapter_without_its_files_is_refused(plain: str, lora: Path) -> None:
    torch.save({}, lora / "adapter_model.bin")
    (lora / "adapter_model.safetensors").unlink()
    assert refused(f"{plain}+{lora}") == (
        f"{lora}: expected an adapter folder with adapter_config.json and "
        "adapter_model.safetensors, got README.md, adapter_config.json, adapter_model.bin; "
        "save the adapter with `save_pretrained`"
    )


def test_whole_model_is_no_adapter_and_an_adapter_no_base(plain: str, lora: Path) -> None:
    assert "expected an adapter folder with adapter_config.json" in refused(f"{plain}+{plain}")
    assert refused(f"{lora}+{lora}").startswith(f"{lora}: expected a model folder with config.json")
    file = f"{plain}/config.json"
    assert refused(f"{plain}+{file}").startswith(f"{file}: expected a model folder")


def test_whole_model_and_adapter_in_one_folder_are_refused(
    plain: str, lora: Path, tmp_path: Path
) -> None:
    """Transformers would load the base that the adapter names, not the model that lies there."""
    both = copy(plain, tmp_path / "both")
    shutil.copytree(lora, both, dirs_exist_ok=True)
    assert refused(str(both)) == (
        f"{both}: expected a whole model or an adapter, got both in one folder "
        "(model.safetensors and adapter_config.json); move one of them into a folder of its own"
    )


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type PROMPT_TUNING"),
        ({"peft_type": "VERA"}, "peft_type VERA"),
        ({"peft_type": None}, "peft_type None"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication=[[0, 2], [1, 2]]"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices=[3]"),
        ({"target_parameters": ["experts"]}, "target_parameters=['experts']"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens=[3]"),
        ({"bias": "all"}, "bias=all"),
        ({"bias": "lora_only"}, "bias=lora_only"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa, which moves the base"),
        (
            {"init_lora_weights": "pissa_niter_16"},
            "init_lora_weights=pissa_niter_16, which moves the base",
        ),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora, which moves the base"),
    ],
)
def test_kinds_that_reach_beyond_their_layers_are_refused_by_name(
    plain: str, lora: Path, changes: dict[str, object], got: str
) -> None:
    edit(lora, **changes)
    with pytest.raises(InputError) as caught:
        open_model(f"{plain}+{lora}")
    assert str(caught.value) == (
        f"{lora}/adapter_config.json: expected an adapter of kind LORA or IA3 that leaves its base "
        f"as it is, got {got}; merge it with peft's `merge_and_unload` and save the whole model"
    )


def test_prefix_tuning_as_peft_saves_it_is_refused(plain: str, lora: Path) -> None:
    PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2).save_pretrained(lora)
    assert "got peft_type PREFIX_TUNING" in refused(f"{plain}+{lora}")


def test_setting_that_the_installed_peft_would_drop_is_refused(plain: str, lora: Path) -> None:
    edit(lora, of_the_future=True, of_the_future_but_off=None)
    assert refused(f"{plain}+{lora}") == (
        f"{lora}/adapter_config.json: expected settings that the installed peft knows, "
        "got of_the_future=True; pip install -U peft"
    )


@pytest.mark.parametrize(
    "other",
    [
        lambda: random_model(2, hidden=32, layers=2),
        lambda: random_model(2, layers=1),
        lambda: random_model(2, layers=3),
    ],
    ids=["wider", "shallower", "deeper"],
)
def test_base_of_other_shapes_is_refused(
    lora: Path, tmp_path: Path, other: Callable[[], Any]
) -> None:
    base = save(other(), tmp_path / "other", None)
    said = refused(f"{base}+{lora}")
    assert said.startswith(f"{lora}: expected an adapter that fits its base, got ")
    assert said.endswith("; check that BASE is the model it was trained on, with as many tokens")


def test_adapter_of_a_grown_vocabulary_is_refused(plain: str, tmp_path: Path) -> None:
    grown = base_model()
    grown.resize_token_embeddings(70)
    adapter_over(grown, tmp_path / "a", KINDS["own-both"]())
    assert "expected an adapter that fits its base, got " in refused(f"{plain}+{tmp_path / 'a'}")


def test_embeddings_that_differ_from_the_bases_are_refused(plain: str, tmp_path: Path) -> None:
    """PEFT writes the whole base matrix beside a LoRA on it: a copy is fine, another is not."""
    adapter_over(base_model(), tmp_path / "a", KINDS["head"]())
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    copied = "base_model.model.lm_head.base_layer.weight"
    assert torch.equal(tensors[copied], base_model().lm_head.weight)
    tensors[copied][0, 0] += 1
    save_file(tensors, file)
    assert refused(f"{plain}+{tmp_path / 'a'}") == (
        f"{tmp_path / 'a'}: expected an adapter that fits its base, got weights for {copied}, "
        "which is no part of an adapter over it; "
        "check that BASE is the model it was trained on, with as many tokens"
    )


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_damaged_adapter_is_refused_in_one_line(plain: str, lora: Path, cut: int) -> None:
    file = lora / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    assert f"{lora}: expected an adapter that fits its base, got " in refused(f"{plain}+{lora}")


@pytest.mark.parametrize("content", ["{", "[]", "\x00"])
def test_damaged_configuration_is_refused_in_one_line(plain: str, lora: Path, content: str) -> None:
    (lora / "adapter_config.json").write_text(content)
    assert f"{lora}/adapter_config.json: expected a " in refused(f"{plain}+{lora}")


def test_missing_peft_names_the_extra(
    plain: str, lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "diagnostics.errors.find_spec",
        lambda name: None if name == "peft" else importlib.util.find_spec(name),
    )
    assert refused(f"{plain}+{lora}") == (
        f"{lora}: expected the package peft, got none installed; "
        "pip install 'fixed-context-diagnostics[peft]'"
    )


def test_base_that_accelerate_keeps_aside_takes_no_adapter(plain: str, lora: Path) -> None:
    """PEFT would fill layers that have no memory, and give the numbers of no model at all."""
    from accelerate import cpu_offload

    model = load_weights(open_model(plain), "float32", "cpu")
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(InputError, match="got a base of which accelerate keeps a part aside"):
        attach(model, lora)
    assert torch.equal(logits(model), logits(base_model()))


def test_head_that_accelerate_keeps_aside_is_fetched(plain: str) -> None:
    from accelerate import cpu_offload

    model = load_weights(open_model(plain), "float32", "cpu")
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.lm_head.weight.is_meta
    assert torch.equal(effective_head(model, "m")[0], base_model().lm_head.weight)
