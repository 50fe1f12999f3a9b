"""The console command: the happy path, one line for every mistake, and the exit statuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from doubles import (
    MARKED_CONTEXT,
    ROLLOUTS,
    bank_info,
    copy,
    random_model,
    rollout,
    save,
    word_tokenizer,
)

from diagnostics.bank.contexts import read_bank, write_bank
from diagnostics.scoring.rescore import Settings
from diagnostics.scoring.rescore import rescore as score

Command = Callable[..., tuple[int, str, str]]

# CONTRACT, "Token table": the columns in their order.
TOKEN_COLUMNS = [
    "checkpoint",
    "context_id",
    "prompt_id",
    "position",
    "token_id",
    "kl_0",
    "kl",
    "gain",
    "gain_rel",
    "reverse_kl_0",
    "reverse_kl",
    "entropy",
    "teacher_entropy",
    "disagreement",
    "compatibility",
    "compatibility_lower",
    "overlap",
    "jaccard",
    "shared_teacher_mass",
    "bc_union",
    "disagreement_norm",
    "compatibility_norm",
    "entropy_norm",
    "teacher_entropy_norm",
    "learnable",
    "incompatible",
    "quadrant",
    "relative_position",
]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def damaged(path: Path) -> Path:
    """Cuts the last bytes off a file."""
    path.write_bytes(path.read_bytes()[:-10])
    return path


@pytest.fixture(scope="module")
def kit(
    tmp_path_factory: pytest.TempPathFactory,
    bank_file: Path,
    teacher: str,
    student: str,
    checkpoint: str,
    stranger: str,
    broken: str,
) -> SimpleNamespace:
    """Good and bad inputs of every kind, by name."""
    here = tmp_path_factory.mktemp("kit")
    rows = [{"prompt": f"w{i} w{i + 1}", "prompt_id": f"p{i}"} for i in range(12)]
    bank = read_bank(bank_file)
    run = here / "run"
    score(bank, teacher, student, {"step1": checkpoint}, run, Settings(top_k=4))
    bare = here / "bare-run"
    score(bank, teacher, student, {}, bare, Settings(top_k=4))
    unfinished = Path(shutil.copytree(run, here / "unfinished"))
    (unfinished / "scores" / "step1" / "00000.parquet").unlink()
    foreign = here / "foreign"
    foreign.mkdir()
    (foreign / "notes.txt").write_text("mine")
    pickled = copy(student, here / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    torn = copy(student, here / "torn")
    damaged(torn / "model.safetensors")
    model = random_model(2)
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    sick = save(model, here / "sick", word_tokenizer())
    mute = save(random_model(2), here / "mute", word_tokenizer(chat_template=None))
    small = here / "small.parquet"
    write_bank([rollout()], bank_info(vocabulary=10), small)
    table = pq.read_table(bank_file)
    ids = table["response_ids"].to_pylist()
    ids[MARKED_CONTEXT][0] += 1
    place = table.column_names.index("response_ids")
    field = table.schema.field("response_ids")
    changed = table.set_column(place, field, pa.array(ids, field.type))
    pq.write_table(changed, here / "changed.parquet")
    newer = {**table.schema.metadata, b"schema_version": b"99"}
    pq.write_table(table.replace_schema_metadata(newer), here / "newer.parquet")
    other = here / "other.parquet"
    write_bank(ROLLOUTS[:2], bank_info(), other)
    (here / "text.parquet").write_text("no table")
    (here / "prompts.txt").write_text("w1")
    (here / "empty").mkdir()
    return SimpleNamespace(
        here=here,
        teacher=teacher,
        student=student,
        checkpoint=checkpoint,
        stranger=stranger,
        broken=broken,
        bank=bank_file,
        bad_context=bank.strings("context_id")[MARKED_CONTEXT],
        run=run,
        bare=bare,
        unfinished=unfinished,
        foreign=foreign,
        pickled=pickled,
        torn=torn,
        mute=mute,
        sick=sick,
        small=small,
        changed=here / "changed.parquet",
        newer=here / "newer.parquet",
        other=other,
        prompts=write_rows(here / "prompts.jsonl", rows),
        holed=write_rows(here / "holed.jsonl", [*rows[:3], {"prompt": 5}]),
        rollouts=write_rows(
            here / "rollouts.jsonl",
            [{"prompt": f"w{i} w5", "response": "w2 w3 w4"} for i in (1, 2, 2)],
        ),
        chat=write_rows(here / "chat.jsonl", [{"prompt": [{"role": "user", "content": "w1"}]}]),
    )


def build(kit: SimpleNamespace, out: Path, **changes: object) -> list[object]:
    """Words of `bank build`, with options changed or (None) left out."""
    options = {"student": kit.student, "prompts": kit.prompts, "max-new-tokens": 4, "out": out}
    return ["bank", "build", *_options(options | changes)]


def bring_in(
    kit: SimpleNamespace, out: Path, form: str, source: Path, **changes: object
) -> list[object]:
    """Words of `bank import`."""
    options = {"tokenizer": kit.student, "out": out}
    return ["bank", "import", form, source, *_options(options | changes)]


def rescore(kit: SimpleNamespace, out: Path, bank: Path | None = None, **changes: object) -> list:
    options = {"teacher": kit.teacher, "student": kit.student, "top-k": 4, "out": out}
    return ["rescore", bank or kit.bank, *_options(options | changes)]


def train(kit: SimpleNamespace, out: Path, **changes: object) -> list[object]:
    options = {
        "student": kit.student,
        "teacher": kit.teacher,
        "prompts": kit.prompts,
        "selector": "teachability",
        "budget": 0.2,
        "steps": 2,
        "rollouts-per-step": 4,
        "held-out": 3,
        "max-new-tokens": 4,
        "top-k": 4,
        "out": out,
    }
    return ["train", *_options(options | changes)]


def _options(options: dict[str, object]) -> list[object]:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    return [word for key, value in named.items() for word in (f"--{key}", value)]


MISTAKES: dict[str, tuple[Callable[[SimpleNamespace, Path], list[object]], str]] = {
    "build: missing prompts": (
        lambda kit, out: build(kit, out, prompts=kit.here / "no.jsonl"),
        "no.jsonl: expected a prompt file, got no such file",
    ),
    "build: another kind of prompts": (
        lambda kit, out: build(kit, out, prompts=kit.here / "prompts.txt"),
        "got another kind of file",
    ),
    "build: missing column": (
        lambda kit, out: build(kit, out, prompt_column="question"),
        "expected a column `question`, got columns prompt, prompt_id",
    ),
    "build: prompt that is no text": (
        lambda kit, out: build(kit, out, prompts=kit.holed),
        "holed.jsonl, row 3: expected text or a list of chat messages in `prompt`",
    ),
    "build: too few prompts": (
        lambda kit, out: build(kit, out, num_prompts=13),
        "expected at least 13 prompts, got 12",
    ),
    "build: missing model": (
        lambda kit, out: build(kit, out, student=kit.here / "nobody"),
        "got no such folder",
    ),
    "build: pickled weights": (
        lambda kit, out: build(kit, out, student=kit.pickled),
        "expected a model folder with config.json and safetensors weights",
    ),
    "build: missing GGUF": (
        lambda kit, out: build(kit, out, student="m.gguf"),
        "m.gguf: expected a model folder, a GGUF file or a Hub id",
    ),
    "build: missing adapter": (
        lambda kit, out: build(kit, out, student=f"{kit.student}+lora"),
        "lora: expected a model folder, a GGUF file or a Hub id",
    ),
    "build: damaged weights": (
        lambda kit, out: build(kit, out, student=kit.torn),
        "expected whole safetensors weights",
    ),
    "build: model that gives NaN": (
        lambda kit, out: build(kit, out, student=kit.sick),
        "finite",
    ),
    "build: no tokenizer": (
        lambda kit, out: build(kit, out, student=kit.checkpoint),
        "expected a tokenizer beside the weights",
    ),
    "build: messages without a chat template": (
        lambda kit, out: build(kit, out, student=kit.mute, prompts=kit.chat),
        "expected a tokenizer with a chat template",
    ),
    "build: unknown device": (
        lambda kit, out: build(kit, out, device="abacus"),
        "--device: expected a device of this machine",
    ),
    "build: unknown dtype": (
        lambda kit, out: build(kit, out, dtype="int4"),
        "--dtype: expected auto, float32, bfloat16, float16, got 'int4'",
    ),
    "build: out below a file": (
        lambda kit, out: build(kit, kit.prompts / "bank.parquet"),
        "expected a folder that can be written",
    ),
    "import: unknown format": (
        lambda kit, out: bring_in(kit, out, "rl", kit.rollouts),
        "FORMAT: expected one of trl, verl, slime, ",
    ),
    "import: missing source": (
        lambda kit, out: bring_in(kit, out, "verl", kit.here / "none"),
        "none: expected a file, or a folder with *.jsonl, got no such file or folder",
    ),
    "import: file of another format": (
        lambda kit, out: bring_in(kit, out, "nemo-rl", kit.rollouts),
        "line 1: expected a value in `token_ids`, got fields prompt, response",
    ),
    "import: step that is not there": (
        lambda kit, out: bring_in(kit, out, "jsonl", kit.rollouts, step=3),
        "--step 3: expected steps of ",
    ),
    "import: no tokenizer": (
        lambda kit, out: bring_in(kit, out, "jsonl", kit.rollouts, tokenizer=kit.checkpoint),
        "expected a tokenizer, got none",
    ),
    "check: missing bank": (
        lambda kit, out: ["bank", "check", kit.here / "no.parquet"],
        "no.parquet: expected a Parquet file, got no such file",
    ),
    "check: changed bank": (
        lambda kit, out: ["bank", "check", kit.changed],
        "the file was changed after it was written",
    ),
    "check: newer bank": (
        lambda kit, out: ["bank", "check", kit.newer],
        "expected schema version 1 to 1 in the Parquet metadata, got 99",
    ),
    "check: no Parquet": (
        lambda kit, out: ["bank", "check", kit.here / "text.parquet"],
        "text.parquet: expected a readable Parquet file, got damage",
    ),
    "check: empty folder": (
        lambda kit, out: ["bank", "check", kit.here / "empty"],
        "got a folder without Parquet files",
    ),
    "check: ids outside the vocabulary": (
        lambda kit, out: ["bank", "check", kit.small],
        "response_ids: expected token ids from 0 to 9, got 10",
    ),
    "rescore: missing bank": (
        lambda kit, out: rescore(kit, out, kit.here / "no.parquet"),
        "expected a Parquet file, got no such file",
    ),
    "rescore: missing teacher": (
        lambda kit, out: rescore(kit, out, teacher=kit.here / "nobody"),
        "got no such folder",
    ),
    "rescore: other vocabulary": (
        lambda kit, out: rescore(kit, out, student=kit.stranger),
        "token id 9 = 'w3' in the first, 'w4' in the second",
    ),
    "rescore: checkpoint without a name": (
        lambda kit, out: rescore(kit, out, checkpoint=kit.checkpoint),
        "--checkpoint: expected NAME=MODEL",
    ),
    "rescore: checkpoint of a taken name": (
        lambda kit, out: rescore(kit, out, checkpoint=f"theta_0={kit.checkpoint}"),
        "not teacher or theta_0, got 'theta_0'",
    ),
    "rescore: support beyond the vocabulary": (
        lambda kit, out: rescore(kit, out, top_k=65),
        "--top-k: expected 1 to 64, the size of the vocabulary, got 65",
    ),
    "rescore: foreign folder": (
        lambda kit, out: rescore(kit, kit.foreign),
        "expected a new or empty folder, or a run, got other files",
    ),
    "rescore: run of another bank": (
        lambda kit, out: rescore(kit, kit.run, kit.other),
        "expected a run of the same bank.digest",
    ),
    "rescore: run of another teacher": (
        lambda kit, out: rescore(kit, kit.run, teacher=kit.student),
        "expected a run of the same teacher.fingerprint",
    ),
    "rescore: run of another support": (
        lambda kit, out: rescore(kit, kit.run, top_k=5),
        "expected a run of the same settings ({'top_k': 5",
    ),
    "rescore: other checkpoint of the same name": (
        lambda kit, out: rescore(kit, kit.run, checkpoint=f"step1={kit.student}"),
        "expected a run of the same checkpoint step1",
    ),
    "tokens: no run": (
        lambda kit, out: ["tokens", kit.foreign, "--out", out],
        "manifest.json: expected a JSON file, got no such file",
    ),
    "tokens: support beyond the run's": (
        lambda kit, out: ["tokens", kit.run, "--top-k", 5, "--out", out],
        "--top-k: expected a support size from 1 to 4, the run's --top-k, got 5",
    ),
    "tokens: no checkpoints": (
        lambda kit, out: ["tokens", kit.bare, "--top-k", 4, "--out", out],
        "expected checkpoints among (none scored), got none",
    ),
    "tokens: unknown definitions": (
        lambda kit, out: ["tokens", kit.run, "--definitions", "printed", "--out", out],
        "--definitions: expected `paper` or `released`, got 'printed'; choose one of them",
    ),
    "tokens: unknown departure": (
        lambda kit, out: ["tokens", kit.run, "--definitions", "released+leak", "--out", out],
        "--definitions: expected after a +: leakage, outcome=gain|gain_rel, ",
    ),
    "report: unknown definitions": (
        lambda kit, out: ["report", kit.run, "--definitions", "printed", "--out", out],
        "--definitions: expected `paper` or `released`, got 'printed'; choose one of them",
    ),
    "tokens: unfinished run": (
        lambda kit, out: ["tokens", kit.unfinished, "--top-k", 4, "--out", out],
        "expected all 1 scored parts of step1, got 0",
    ),
    "tokens: out below a file": (
        lambda kit, out: ["tokens", kit.run, "--top-k", 4, "--out", kit.prompts / "t.parquet"],
        "expected a folder that can be written",
    ),
    "plan: no run": (
        lambda kit, out: ["plan", kit.foreign],
        "manifest.json: expected a JSON file, got no such file",
    ),
    "plan: support beyond the run's": (
        lambda kit, out: ["plan", kit.run, "--top-k", 5],
        "--top-k: expected a support size from 1 to 4, the run's --top-k, got 5",
    ),
    "plan: no checkpoints": (
        lambda kit, out: ["plan", kit.bare, "--top-k", 4],
        "expected checkpoints among (none scored), got none",
    ),
    "plan: unknown checkpoint": (
        lambda kit, out: ["plan", kit.run, "--top-k", 4, "--checkpoint", "step9"],
        "expected one checkpoint among step1, got 'step9'; name one with --checkpoint",
    ),
    "plan: two kinds of width": (
        lambda kit, out: ["plan", kit.run, "--top-k", 4, "--width", 0.1, "--relative", 0.5],
        "--width: expected a width or a relative one, got 0.1 and 0.5",
    ),
    "plan: width of nothing": (
        lambda kit, out: ["plan", kit.run, "--top-k", 4, "--width", 0],
        "--width: expected a number above 0, got 0",
    ),
    "plan: unknown statistic": (
        lambda kit, out: ["plan", kit.run, "--top-k", 4, "--statistic", "median"],
        "--statistic: expected headline numbers among gain, beta, ",
    ),
    "plan: out below a file": (
        lambda kit, out: ["plan", kit.run, "--top-k", 4, "--out", kit.prompts / "plan.csv"],
        "expected a folder that can be written",
    ),
    "view: no run": (
        lambda kit, out: ["view", kit.foreign, "--out", out],
        "manifest.json: expected a JSON file, got no such file",
    ),
    "view: support beyond the run's": (
        lambda kit, out: ["view", kit.run, "--top-k", 5, "--out", out],
        "--top-k: expected a support size from 1 to 4, the run's --top-k, got 5",
    ),
    "view: no checkpoints": (
        lambda kit, out: ["view", kit.bare, "--top-k", 4, "--out", out],
        "expected checkpoints among (none scored), got none",
    ),
    "view: out below a file": (
        lambda kit, out: ["view", kit.run, "--top-k", 4, "--out", kit.prompts / "view.html"],
        "expected a folder that can be written",
    ),
    "train: unknown selector": (
        lambda kit, out: train(kit, out, selector="best"),
        "--selector: expected one of teachability",
    ),
    "train: budget in percent": (
        lambda kit, out: train(kit, out, budget=5),
        "--budget: expected a share of positions in (0, 1], got 5.0; write 5 % as 0.05",
    ),
    "train: budget of nothing": (
        lambda kit, out: train(kit, out, budget=0),
        "--budget: expected a share of positions in (0, 1], got 0.0",
    ),
    "train: folder in use": (
        lambda kit, out: train(kit, kit.foreign),
        "expected a new or empty folder, got files",
    ),
    "train: out is a file": (
        lambda kit, out: train(kit, kit.prompts),
        "prompts.jsonl: expected a new or empty folder",
    ),
    "train: too few prompts": (
        lambda kit, out: train(kit, out, rollouts_per_step=10),
        "--prompts: expected at least 3 held-out prompts and one batch of 10, got 12 prompts",
    ),
    "train: missing prompts": (
        lambda kit, out: train(kit, out, prompts=kit.here / "no.csv"),
        "no.csv: expected a prompt file, got no such file",
    ),
    "train: other vocabulary": (
        lambda kit, out: train(kit, out, teacher=kit.stranger),
        "token id 9 = 'w4' in the first, 'w3' in the second",
    ),
    "train: support beyond the vocabulary": (
        lambda kit, out: train(kit, out, top_k=65),
        "--top-k: expected ",
    ),
    "train: loss that is not finite": (
        lambda kit, out: train(kit, out, learning_rate=1e30, selector="full", steps=4),
        "finite",
    ),
}


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_mistake_ends_in_one_line_and_status_1(
    command: Command, kit: SimpleNamespace, name: str, tmp_path: Path
) -> None:
    words, complaint = MISTAKES[name]
    before = listing(kit.here)
    status, said, error = command(*words(kit, tmp_path / "out"))
    assert complaint in error
    assert status == 1
    assert error.startswith("diagnostics: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert said == ""
    assert list(tmp_path.iterdir()) == []
    assert listing(kit.here) == before


def test_model_that_gives_nan_is_named_with_its_context(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    words = rescore(kit, tmp_path / "run", checkpoint=f"bad={kit.broken}")
    status, _, error = command(*words)
    assert status == 1
    assert error == (
        f"diagnostics: bad, context {kit.bad_context}: expected finite model output, got NaN or "
        "infinity; score in float32 (--dtype float32), or check the checkpoint's weights\n"
    )
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["bank", "nonsense"], "No such command 'nonsense'"),
        (["bank", "build"], "Missing option '--student'"),
        (["rescore"], "Missing argument"),
        (["rescore", "b", "--teacher", "t"], "Missing option '--student'"),
        (["tokens", "r", "--out", "o", "--top-k", "0"], "Invalid value for '--top-k'"),
        (["tokens", "r", "--out", "o", "--top-k", "many"], "Invalid value for '--top-k'"),
        (["tokens", "r", "--out", "o", "--nonsense"], "No such option: --nonsense"),
        (["train", "--budget", "half"], "Invalid value for '--budget'"),
        (["bank", "check", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_status_2(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], complaint: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, _, error = command(*words)
    assert status == 2
    assert complaint in " ".join(error.split())
    assert "Traceback" not in error


# CONTRACT, "Commands": words that stand there must be there.
OPTIONS = {
    "": ["demo", "bank", "rescore", "tokens", "train", "plan", "report", "view"],
    "demo": ["--out"],
    "bank": ["build", "import", "check"],
    "bank build": [
        "--student",
        "--prompts",
        "--out",
        "--num-prompts",
        "--samples-per-prompt",
        "--max-new-tokens",
        "--temperature",
        "--seed",
        "--prompt-column",
    ],
    "bank import": ["FORMAT", "SOURCE", "--tokenizer", "--out"],
    "bank check": ["BANK"],
    "rescore": [
        "BANK",
        "--teacher",
        "--student",
        "--checkpoint",
        "--out",
        "--top-k",
        "--device",
        "--dtype",
        "--batch-tokens",
    ],
    "tokens": ["RUN", "--top-k", "--out", "--definitions"],
    "train": ["--student", "--teacher", "--prompts", "--selector", "--budget", "--out"],
    "plan": ["RUN", "--checkpoint", "--top-k", "--width", "--relative", "--statistic", "--out"],
    "view": ["RUN", "--out", "--top-k", "--contexts", "--split", "--seed"],
    "report": ["RUNS", "--out", "--definitions", "--top-k", "--draws", "--seed"],
}


@pytest.mark.parametrize("words", list(OPTIONS))
def test_help_names_what_the_contract_promises(
    command: Command, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, said, error = command(*words.split(), "--help")
    assert status == 0
    assert error == ""
    lower = said.lower()
    assert [option for option in OPTIONS[words] if option.lower() not in lower] == []


def test_whole_way_from_prompts_to_tokens_and_training(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    bank, run, table = tmp_path / "bank.parquet", tmp_path / "run", tmp_path / "tokens.parquet"
    trained = tmp_path / "trained"
    sampling = {"num_prompts": 5, "samples_per_prompt": 2, "temperature": 0.9, "seed": 3}

    status, said, error = command(*build(kit, bank, **sampling))
    assert (status, error) == (0, "")
    digest = read_bank(bank).digest
    assert said == f"{bank}: 10 contexts, digest {digest[:12]}\n"

    status, said, error = command("bank", "check", bank)
    assert (status, error) == (0, "")
    assert said == f"{bank}: 10 contexts, digest {digest[:12]}: sound\n"

    status, said, error = command(*train(kit, trained))
    assert (status, error) == (0, "")
    assert said.startswith(f"{trained}: held-out KL ")
    assert said.endswith(" nats in 2 steps\n")

    status, said, error = command(*rescore(kit, run, bank, checkpoint=f"step2={trained}"))
    assert (status, error) == (0, "")
    assert said == f"{run}: 10 contexts; step2\n"

    status, said, error = command("tokens", run, "--top-k", 3, "--out", table)
    assert (status, error) == (0, "")
    found = pq.read_table(table)
    assert said == f"{table}: {found.num_rows} rows\n"
    assert found.column_names == TOKEN_COLUMNS
    assert found.num_rows == sum(int(mask.sum()) for mask in read_bank(bank).masks())
    assert set(found["checkpoint"].to_pylist()) == {"step2"}
    responses = [ids.tolist() for ids in read_bank(bank).ids("response_ids")]
    assert found["token_id"].to_pylist() == [token for ids in responses for token in ids]

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bank.parquet", "run", "tokens.parquet", "trained"}
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_view_writes_one_file_or_several(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    words = ["view", kit.run, "--top-k", 4, "--out", tmp_path / "view.html"]
    status, said, error = command(*words)
    assert (status, error) == (0, "")
    assert said.split()[0] == f"{tmp_path / 'view.html'}:"
    status, said, _ = command(*words, "--split", "--contexts", 4)
    assert status == 0
    assert [line.split()[0] for line in said.splitlines()] == [
        f"{tmp_path / f'view-0{n}.html'}:" for n in (1, 2)
    ]
    assert " w5" in (tmp_path / "view-01.html").read_text(encoding="utf-8")


def test_same_commands_give_the_same_bytes(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        assert command(*build(kit, tmp_path / f"{name}.parquet", seed=5))[0] == 0
        words = ["tokens", kit.run, "--top-k", 4, "--out", tmp_path / f"{name}-tokens.parquet"]
        assert command(*words)[0] == 0
    for suffix in (".parquet", "-tokens.parquet"):
        one, two = (tmp_path / f"{name}{suffix}" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["paper", "released", "released+leakage"])
def test_token_file_names_the_definitions_that_were_asked_for(
    command: Command, kit: SimpleNamespace, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.parquet"
    words = ["tokens", kit.run, "--top-k", 4, "--definitions", name, "--out", file]
    assert command(*words)[0] == 0
    found = pq.read_table(file)
    assert found.schema.metadata[b"definitions"] == name.encode()
    same = found["disagreement"].to_pylist() == found["kl_0"].to_pylist()
    assert same == name.startswith("released")


def test_later_checkpoint_joins_a_finished_run(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(kit.run, tmp_path / "run"))
    status, said, _ = command(*rescore(kit, out, checkpoint=f"step2={kit.student}"))
    assert (status, said) == (0, f"{out}: 7 contexts; step1, step2\n")


def module(*words: object) -> subprocess.CompletedProcess[str]:
    """`python -m diagnostics` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "diagnostics", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_process_ends_with_status_1_and_one_line(tmp_path: Path) -> None:
    done = module("bank", "check", tmp_path / "no.parquet")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"diagnostics: {tmp_path / 'no.parquet'}: expected a Parquet file, got no such file; "
        "check the path\n"
    )


def test_process_ends_with_status_2_on_wrong_usage() -> None:
    done = module("tokens")
    assert done.returncode == 2
    assert "Missing argument" in done.stderr


@pytest.mark.slow
def test_process_that_sampled_says_nothing_on_stderr(kit: SimpleNamespace, tmp_path: Path) -> None:
    """Warnings of libraries and progress bars stay off a stderr that is no terminal."""
    done = module(*build(kit, tmp_path / "bank.parquet", num_prompts=3))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'bank.parquet'}: 3 contexts, digest ")


def test_imported_rollouts_are_scored_like_any(
    command: Command, kit: SimpleNamespace, tmp_path: Path
) -> None:
    bank, run = tmp_path / "bank.parquet", tmp_path / "run"
    status, said, note = command(*bring_in(kit, bank, "jsonl", kit.rollouts))
    digest = read_bank(bank).digest[:12]
    assert (status, said) == (0, f"{bank}: 3 contexts of 2 prompts, digest {digest}\n")
    assert note.startswith("note: 3 of 3 responses were encoded from text: ")
    assert note.count("\n") == 1
    assert command("bank", "check", bank)[0] == 0
    status, said, error = command(*rescore(kit, run, bank, checkpoint=f"step1={kit.checkpoint}"))
    assert (status, said, error) == (0, f"{run}: 3 contexts; step1\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "build: damaged weights",
        "build: prompt that is no text",
        "rescore: other vocabulary",
        "rescore: missing teacher",
        "train: loss that is not finite",
    ],
)
def test_process_with_a_mistake_says_one_line_and_no_more(
    kit: SimpleNamespace, name: str, tmp_path: Path
) -> None:
    words, complaint = MISTAKES[name]
    done = module(*words(kit, tmp_path / "out"))
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_process_that_trained_and_rescored_says_nothing_on_stderr(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    for words in (train(kit, tmp_path / "trained"), rescore(kit, tmp_path / "run")):
        done = module(*words)
        assert (done.returncode, done.stderr) == (0, "")
