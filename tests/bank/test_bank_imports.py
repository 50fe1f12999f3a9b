"""Rollouts as trainers write them become a bank: the same ids, or a word about what was lost."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from doubles import END, ROLLOUTS, bank_info, word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from diagnostics.bank.contexts import Bank, Rollout, read_bank, write_bank
from diagnostics.bank.imports.importer import Imported, import_bank
from diagnostics.bank.imports.steps import choose_steps, shown_steps
from diagnostics.bank.sample import encode_prompt
from diagnostics.embedded.pair import STUDENT
from diagnostics.errors import InputError
from diagnostics.models.files import open_model, tokenizer_fingerprint

Row = dict[str, Any]
CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe brief.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)


# Writers: one file as the trainer's own code leaves it.


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_trl(folder: Path, step: int, rows: Sequence[tuple[Any, Any]]) -> Path:
    """GRPOTrainer.log: one Parquet file a logging step."""
    path = folder / "completions" / f"completions_{step:05d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(
        {
            "step": [step] * len(rows),
            "prompt": [prompt for prompt, _ in rows],
            "completion": [completion for _, completion in rows],
            "accuracy_reward": [0.5] * len(rows),
            "advantage": [0.0] * len(rows),
        }
    )
    frame.to_parquet(path)
    return folder


def write_verl(folder: Path, step: int, rows: Sequence[tuple[str, str]]) -> Path:
    """RayPPOTrainer's dump of generations: one JSONL file a step."""
    lines = [
        {"input": prompt, "output": answer, "gts": None, "score": 1.0, "step": step}
        for prompt, answer in rows
    ]
    write_lines(folder / f"{step}.jsonl", lines)
    return folder


def write_slime(folder: Path, step: int, samples: list[Row], *, evaluation: bool = False) -> Path:
    """--save-debug-rollout-data: a pickle of the samples as dicts."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"eval_{step}.pt" if evaluation else f"{step}.pt"
    torch.save({"rollout_id": step, "samples": samples}, folder / name)
    return folder


def write_nemo(folder: Path, step: int, rows: Sequence[Rollout]) -> Path:
    """GRPO's log of a batch: right-padded, prompt and answer in one list."""
    width = max(len(r.prompt_ids) + len(r.response_ids) for r in rows) + 2
    lines = []
    for r in rows:
        length, start = len(r.prompt_ids) + len(r.response_ids), len(r.prompt_ids)
        pad = [0] * (width - length)
        logprobs = r.sampled_logprob or [-1.0] * len(r.response_ids)
        lines.append(
            {
                "content": "…",
                "rewards": 1.0,
                "input_lengths": length,
                "token_ids": r.prompt_ids + r.response_ids + pad,
                "token_loss_mask": [0] * start + [int(m) for m in r.loss_mask] + pad,
                "sample_loss_mask": 1.0,
                "generation_logprobs": [0.0] * start + logprobs + [0.0] * len(pad),
            }
        )
    write_lines(folder / f"train_data_step{step}.jsonl", lines)
    return folder


def sample(r: Rollout, **changes: object) -> Row:
    """A slime sample's `to_dict`, with fields that an import does not read."""
    return {
        "group_index": 3,
        "index": 7,
        "prompt": r.prompt_text,
        "tokens": r.prompt_ids + r.response_ids,
        "response": r.response_text,
        "response_length": len(r.response_ids),
        "reward": np.float64(0.5),
        "loss_mask": [int(kept) for kept in r.loss_mask],
        "rollout_log_probs": r.sampled_logprob,
        "rollout_routed_experts": np.zeros((2, 3, 4), dtype=np.int32),
        "remove_sample": False,
        "status": "completed",
        "metadata": {},
    } | changes


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Rollouts of several lengths, masks with holes, log-probabilities."""
    rows = [
        Rollout(**{n: getattr(r, n) for n in Rollout.__slots__} | {"sampled_logprob": lp})
        for r in ROLLOUTS
        for lp in [[-0.25 * (1 + i) for i in range(len(r.response_ids))]]
    ]
    return write_bank(rows, bank_info(), tmp_path / "first.parquet")


def rollouts(bank: Bank) -> list[Rollout]:
    return [Rollout(**{n: row[n] for n in Rollout.__slots__}) for row in bank.table.to_pylist()]


def take(form: str, source: Path, model: str, **options: Any) -> Imported:
    return import_bank(form, source, model, Path(source).parent / "made.parquet", **options)


def column(found: Imported | Bank, name: str) -> list[Any]:
    table = found.bank.table if isinstance(found, Imported) else found.table
    values: list[Any] = table[name].to_pylist()
    return values


# Formats with ids: what was frozen comes back.


def to_slime(bank: Bank, folder: Path) -> Path:
    return write_slime(folder, 0, [sample(r) for r in rollouts(bank)])


def to_slime_arrays(bank: Bank, folder: Path) -> Path:
    rows = [
        sample(
            r,
            tokens=np.array(r.prompt_ids + r.response_ids),
            loss_mask=torch.tensor(r.loss_mask),
            rollout_log_probs=np.array(r.sampled_logprob, dtype=np.float32),
        )
        for r in rollouts(bank)
    ]
    return write_slime(folder, 0, rows)


def to_jsonl(bank: Bank, folder: Path) -> Path:
    names = ("prompt_ids", "response_ids", "loss_mask", "sampled_logprob", "prompt_id")
    rows = [{n: getattr(r, n) for n in names} for r in rollouts(bank)]
    write_lines(folder / "rows.jsonl", rows)
    return folder


@pytest.mark.parametrize(
    ("form", "export"),
    [("slime", to_slime), ("slime", to_slime_arrays), ("jsonl", to_jsonl)],
)
def test_a_bank_written_out_and_imported_is_the_same_rows(
    form: str, export: Callable[[Bank, Path], Path], bank: Bank, student: str, tmp_path: Path
) -> None:
    found = take(form, export(bank, tmp_path / "out"), student)
    for name in ("prompt_ids", "response_ids", "loss_mask", "sampled_logprob"):
        assert column(found, name) == column(bank, name)
    assert column(found, "token_source") == ["imported"] * len(bank)
    assert found.notes() == []
    assert read_bank(tmp_path / "made.parquet").digest == found.bank.digest


def test_the_papers_bank_comes_in_as_it_is(bank: Bank, student: str, tmp_path: Path) -> None:
    rows = [
        {
            "tokens": json.dumps(r.prompt_ids + r.response_ids),
            "prompt_len": len(r.prompt_ids),
            "resp_len": len(r.response_ids),
        }
        for r in rollouts(bank)
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "context_bank.parquet")
    found = take("paper", tmp_path / "context_bank.parquet", student)
    assert column(found, "prompt_ids") == column(bank, "prompt_ids")
    assert column(found, "response_ids") == column(bank, "response_ids")
    assert column(found, "loss_mask") == [[True] * len(r.response_ids) for r in rollouts(bank)]
    assert column(found, "sampled_logprob") == [None] * len(bank)


def scored(rows: Sequence[Row]) -> list[list[tuple[tuple[int, ...], int]]]:
    """Every position that counts, as what stands before it and its token."""
    return [
        [
            ((*row["prompt_ids"], *row["response_ids"][:t]), row["response_ids"][t])
            for t, kept in enumerate(row["loss_mask"])
            if kept
        ]
        for row in rows
    ]


def test_padded_rows_of_nemo_rl_score_the_same_positions(
    bank: Bank, student: str, tmp_path: Path
) -> None:
    found = take("nemo-rl", write_nemo(tmp_path / "log", 4, rollouts(bank)), student)
    assert scored(found.bank.table.to_pylist()) == scored(bank.table.to_pylist())
    assert all(mask[0] and mask[-1] for mask in column(found, "loss_mask"))


# Formats of text.


@pytest.fixture
def chat_model(tmp_path: Path) -> str:
    """A byte-level tokenizer whose chat markers are special tokens, alone in its folder."""
    tokenizer = AutoTokenizer.from_pretrained(STUDENT)
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>"}
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path / "chat-model")
    return str(tmp_path / "chat-model")


def chat(user: str, system: str | None = None) -> list[dict[str, str]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": user}]


def dropped(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True))


CHATS = [
    chat("Add 2 and 3."),
    chat("Add 2 and 3.\n\nThen stop. "),
    chat("What is\n 7 * 8?", system="You count."),
    chat("An assistant said: system, user."),
    chat("Ünï 中文 🤝‍ \u202e reversed"),
]


@pytest.mark.parametrize("thinking", [True, False])
def test_chat_markers_that_verl_dropped_come_back(
    thinking: bool, chat_model: str, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    options = {} if thinking else {"enable_thinking": False}
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **options
            ),
            add_special_tokens=False,
        )["input_ids"]
        for messages in CHATS
    ]
    answer = tokenizer("The sum is 5.\nDone", add_special_tokens=False)["input_ids"]
    rows = [(dropped(tokenizer, ids), dropped(tokenizer, answer)) for ids in prompts]
    found = take("verl", write_verl(tmp_path / "dump", 1, rows), chat_model)
    assert column(found, "prompt_ids") == prompts
    assert column(found, "response_ids") == [answer] * len(prompts)
    assert (found.chats_restored, found.chats_plain) == (len(CHATS), 0)
    assert column(found, "token_source") == ["retokenized"] * len(prompts)


def test_a_prompt_of_several_turns_is_not_guessed_at(chat_model: str, tmp_path: Path) -> None:
    text = "system\nBe brief.\nuser\nHi\nassistant\nYes?\nuser\nAdd 2 and 3.\nassistant\n"
    found = take("verl", write_verl(tmp_path / "dump", 1, [(text, "5")]), chat_model)
    assert (found.chats_restored, found.chats_plain) == (0, 1)
    assert column(found, "prompt_text") == [text]
    assert "1 prompts are taken as plain text: their chat markers were dropped" in found.notes()[1]


def test_messages_of_trl_are_rendered_as_bank_build_does(chat_model: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(chat_model)
    rows = [(m, [{"role": "assistant", "content": "It is 5."}]) for m in CHATS]
    found = take("trl", write_trl(tmp_path / "run", 10, rows), chat_model)
    assert column(found, "prompt_ids") == [encode_prompt(m, tokenizer) for m in CHATS]
    assert column(found, "response_text") == ["It is 5."] * len(CHATS)
    assert (found.chats_restored, found.chats_plain, found.retokenized) == (0, 0, len(CHATS))
    assert found.notes() == [
        "5 of 5 responses were encoded from text: the student may have drawn other tokens for it, "
        "and an end token is lost"
    ]


def test_plain_prompts_of_trl_stay_plain(chat_model: str, tmp_path: Path) -> None:
    found = take("trl", write_trl(tmp_path / "run", 1, [("2 + 3 =", " 5")]), chat_model)
    assert (column(found, "prompt_text"), column(found, "response_text")) == (["2 + 3 ="], [" 5"])
    assert (found.chats_restored, found.chats_plain) == (0, 0)


def test_ms_swift_lines_are_exploded_and_so_are_rows(student: str, tmp_path: Path) -> None:
    lists = {"step": ["1", "1"], "prompt": ["w1", "w2"], "completion": ["w3 w4", "w5"], "r": [0, 1]}
    rows = [{"gen_step": 1, "prompt": "w6", "completion": "w7", "reward": 0.0}]
    found = take("ms-swift", write_lines(tmp_path / "completions.jsonl", [lists, *rows]), student)
    assert column(found, "response_text") == ["w3 w4", "w5", "w7"]
    assert column(found, "response_ids") == [[9, 10], [11], [13]]


def test_jsonl_takes_text_ids_or_one_of_each(student: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "w1", "response": "w2"},
        {"prompt": "w1", "response_ids": [8, END], "loss_mask": [1, 0], "step": 3},
        {"prompt_ids": [7], "response": "w2", "prompt_id": 5, "teacher_prompt": "w9"},
    ]
    found = take("jsonl", write_lines(tmp_path / "rows.jsonl", rows[:1] + rows[2:]), student)
    assert column(found, "prompt_ids") == [[7], [7]]
    assert column(found, "response_ids") == [[8], [8]]
    assert column(found, "teacher_prompt_ids") == [None, [15]]
    assert column(found, "prompt_id")[1] == "5"
    found = take("jsonl", write_lines(tmp_path / "rows.jsonl", rows[1:2]), student)
    assert column(found, "token_source") == ["imported"]
    assert column(found, "loss_mask") == [[True, False]]


def test_a_response_gets_no_space_that_it_did_not_begin_with(tmp_path: Path) -> None:
    """Tokenizers of the sentencepiece kind put a space before any text that stands alone."""
    words = [("<unk>", 0.0), ("▁a", -1.0), ("b", -1.0), ("▁b", -1.0), ("▁", -3.0), ("a", -3.0)]
    inner = Tokenizer(models.Unigram(words, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(tmp_path / "model")
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "a", "response": " b"}]
    found = take("jsonl", write_lines(tmp_path / "r.jsonl", rows), str(tmp_path / "model"))
    assert column(found, "response_ids") == [[2], [3]]


def test_a_text_that_ids_cannot_say_is_counted(student: str, tmp_path: Path) -> None:
    rows = [("w1", "w2 nonsense"), ("w1", "w2  w3"), ("w2", "w3 w4")]
    found = take("trl", write_trl(tmp_path / "run", 1, rows), student)
    assert (found.retokenized, found.other_text) == (3, 2)
    assert found.notes()[1] == "2 of these do not decode to the text that was written"


# Clusters, steps, sizes.


def test_rollouts_of_one_prompt_are_one_cluster_and_counted(student: str, tmp_path: Path) -> None:
    rows = [("w1", "w2"), ("w3", "w2"), ("w1", "w2"), ("w1", "w4"), ("w3", "w5")]
    found = take("trl", write_trl(tmp_path / "run", 1, rows), student)
    ids = column(found, "prompt_id")
    assert [ids.index(name) for name in ids] == [0, 1, 0, 0, 1]
    assert column(found, "sample_index") == [0, 0, 1, 2, 1]


def test_the_first_step_is_taken_unless_others_are_named(student: str, tmp_path: Path) -> None:
    for step in (10, 2, 9):
        write_verl(tmp_path / "dump", step, [(f"w{step}", "w1"), ("w0", f"w{step}")])
    found = take("verl", tmp_path / "dump", student)
    assert found.steps == (2,)
    assert found.notes()[0] == "step 2 of 2, 9, 10"
    assert column(found, "prompt_text") == ["w2", "w0"]
    several = take("verl", tmp_path / "dump", student, step="9-10")
    assert several.notes()[0] == "step 9, 10 of 2, 9, 10: rollouts of several students"
    assert column(several, "prompt_text") == ["w9", "w0", "w10", "w0"]
    assert column(several, "sample_index") == [0, 0, 0, 1]
    assert several.bank.info.sampling["steps"] == [9, 10]


def test_steps_in_rows_are_chosen_like_steps_in_names(student: str, tmp_path: Path) -> None:
    lines = [{"step": [s] * 2, "prompt": ["w1", "w2"], "completion": [f"w{s}"] * 2} for s in "21"]
    path = write_lines(tmp_path / "completions.jsonl", lines)
    assert len(take("ms-swift", path, student).bank) == 2
    assert take("ms-swift", path, student).steps == (1,)
    assert len(take("ms-swift", path, student, step="all").bank) == 4


@pytest.mark.parametrize("form", ["trl", "ms-swift"])
def test_a_batch_that_is_logged_at_two_steps_counts_once(
    form: str, student: str, tmp_path: Path
) -> None:
    """With several optimizer steps a generation, the same rollouts are logged at each."""
    batches = [[("w1", "w2"), ("w1", "w2")], [("w1", "w2"), ("w1", "w2")], [("w1", "w3")] * 2]
    if form == "trl":
        for step, rows in enumerate(batches, 1):
            source = write_trl(tmp_path / "run", step, rows)
    else:
        lines = [
            {"step": [str(step)] * 2, "prompt": ["w1"] * 2, "completion": [a for _, a in rows]}
            for step, rows in enumerate(batches, 1)
        ]
        source = write_lines(tmp_path / "completions.jsonl", lines)
    found = take(form, source, student, step="all")
    assert column(found, "response_text") == ["w2", "w2", "w3", "w3"]
    assert found.skipped == {"the same text as in an earlier step": 2}
    assert found.notes()[-1] == "2 rows left out: the same text as in an earlier step"


def test_evaluation_dumps_of_slime_are_passed_over(
    bank: Bank, student: str, tmp_path: Path
) -> None:
    first, second, *_ = rollouts(bank)
    write_slime(tmp_path / "dump", 0, [sample(second)], evaluation=True)
    write_slime(tmp_path / "dump", 12, [sample(first)])
    found = take("slime", tmp_path / "dump", student)
    assert found.steps_there == (12,)
    assert column(found, "response_ids") == [first.response_ids]


def test_rows_that_a_trainer_did_not_learn_from_are_left_out_and_counted(
    bank: Bank, student: str, tmp_path: Path
) -> None:
    rows = rollouts(bank)
    changes: list[Row] = [
        {"status": "aborted"},
        {"remove_sample": True},
        {"response_length": 0, "loss_mask": [], "rollout_log_probs": []},
        {"loss_mask": [0] * len(rows[3].response_ids)},
        {"status": "truncated"},
    ]
    samples = [sample(r, **change) for r, change in zip(rows, changes, strict=False)]
    found = take("slime", write_slime(tmp_path / "dump", 0, samples), student)
    assert column(found, "response_ids") == [rows[4].response_ids]
    assert found.skipped == {
        "status aborted": 1,
        "removed by the trainer": 1,
        "no response tokens": 1,
        "no response token that counts": 1,
    }


def test_prompts_and_tokens_are_limited(bank: Bank, student: str, tmp_path: Path) -> None:
    found = take("slime", to_slime(bank, tmp_path / "o"), student, num_prompts=2)
    assert column(found, "response_ids") == [r.response_ids for r in rollouts(bank)[:3]]
    short = take("slime", to_slime(bank, tmp_path / "o"), student, max_response_tokens=3)
    for made, r in zip(short.bank.table.to_pylist(), rollouts(bank), strict=True):
        assert made["response_ids"] == r.response_ids[:3]
        assert made["loss_mask"] == r.loss_mask[:3]
        assert made["sampled_logprob"] == (r.sampled_logprob or [])[:3]


def test_a_student_is_named_or_unknown(bank: Bank, student: str, tmp_path: Path) -> None:
    source = to_slime(bank, tmp_path / "o")
    info = take("slime", source, student).bank.info
    assert (info.student, info.student_fingerprint) == ("unknown", "unknown")
    assert info.tokenizer_fingerprint == tokenizer_fingerprint(word_tokenizer())
    info = take("slime", source, student, student=student).bank.info
    assert (info.student, info.student_fingerprint) == (student, open_model(student).fingerprint)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, [1]),
        ("all", [1, 2, 3, 10]),
        ("3", [3]),
        ("2-9", [2, 3]),
        ("10, 1-2", [1, 2, 10]),
    ],
)
def test_steps_are_chosen(wanted: str | None, chosen: list[int]) -> None:
    assert choose_steps([10, 1, 2, 3, 3], wanted, "log") == chosen


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("4", "--step 4: expected steps of log: 1, 2, got 4; choose among them"),
        ("1,4-9", "--step 1,4-9: expected steps of log: 1, 2, got 4, 9; choose among them"),
        ("last", "--step: expected `all`, or numbers and ranges as 5, 1-20 or 1,3,5-7, got 'last'"),
        ("2-1", "got '2-1'"),
        ("-1", "got '-1'"),
        ("", "got ''"),
    ],
)
def test_steps_that_are_not_there_are_refused(wanted: str, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        choose_steps([1, 2], wanted, "log")
    assert complaint in str(raised.value)


def test_many_steps_are_shown_in_few_words() -> None:
    assert shown_steps(range(1, 42)) == "41 steps from 1 to 41"
    assert shown_steps([]) == "none"


# What is not a rollout is refused, with the row it stands in.

SOUND_SAMPLE = {"tokens": [6, 7, 8], "response_length": 1}
NEMO = {"token_ids": [6, 7, 0], "token_loss_mask": [0, 1, 0]}
MISTAKES: dict[str, tuple[str, list[Any], str]] = {
    "verl: no such field": ("verl", [{"step": 1, "input": "w1"}], "line 1: expected a value in "),
    "verl: step of text": (
        "verl",
        [{"step": "1", "input": "w1", "output": "w2"}],
        "line 1: expected a whole number from 0 in `step`, got str '1'",
    ),
    "verl: prompt of nothing": (
        "verl",
        [{"step": 1, "input": " ", "output": "w2"}],
        "line 1: expected text or a list of chat messages in `input`, got empty text",
    ),
    "verl: half a character": (
        "verl",
        [{"step": 1, "input": "w1", "output": "w2 \ud83e"}],
        "line 1: expected whole Unicode characters in `output`, got half a surrogate pair at "
        "character 3",
    ),
    "jsonl: half a character in a message": (
        "jsonl",
        [{"prompt": [{"role": "user", "content": "\udd1d"}], "response": "w2"}],
        "line 1: expected whole Unicode characters in `prompt`",
    ),
    "jsonl: several turns": (
        "jsonl",
        [{"prompt": "w1", "response": [{"role": "assistant", "content": "w2"}] * 2}],
        "expected text or one assistant message in `response`, got 2 messages; write turns and",
    ),
    "jsonl: a tool call": (
        "jsonl",
        [
            {
                "prompt": "w1",
                "response": [{"role": "assistant", "content": "w2", "tool_calls": [{}]}],
            }
        ],
        "expected text or one assistant message in `response`, got 1 messages",
    ),
    "jsonl: a user's answer": (
        "jsonl",
        [{"prompt": "w1", "response": [{"role": "user", "content": "w2"}]}],
        "expected text or one assistant message in `response`",
    ),
    "jsonl: mask without ids": (
        "jsonl",
        [{"prompt": "w1", "response": "w2", "loss_mask": [1]}],
        "line 1: expected `response_ids` beside `loss_mask`, which counts tokens, got text alone",
    ),
    "jsonl: mask too short": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8, 9], "loss_mask": [1]}],
        "line 1: expected 2 entries in `loss_mask`, one a response token, got 1",
    ),
    "jsonl: mask of halves": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8], "loss_mask": [0.5]}],
        "line 1: expected zeros and ones in `loss_mask`, got float '0.5'",
    ),
    "jsonl: probability": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8], "sampled_logprob": [0.5]}],
        "line 1: expected log-probabilities of at most 0 in `sampled_logprob`, got float '0.5'",
    ),
    "jsonl: NaN": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8], "sampled_logprob": [float("nan")]}],
        "got float 'nan'",
    ),
    "jsonl: first log-probability missing": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8, 9], "sampled_logprob": [None, -1.0]}],
        "log-probabilities of at most 0 in `sampled_logprob`, got nothing",
    ),
    "jsonl: ids as floats": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8.0]}],
        "line 1: expected a whole number from 0 in `response_ids`, got float '8.0'",
    ),
    "jsonl: ids of truth": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [True]}],
        "got bool 'True'",
    ),
    "jsonl: negative id": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [-100]}],
        "got int '-100'",
    ),
    "jsonl: id of another tokenizer": (
        "jsonl",
        [{"prompt": "w1", "response_ids": [8]}, {"prompt": "w1", "response_ids": [151643]}],
        "line 2: expected token ids from 0 to 63, got 151643; give the tokenizer of the student",
    ),
    "jsonl: no object": ("jsonl", [[1]], "line 1: expected a JSON object, got list '[1]'"),
    "jsonl: nothing that counts": (
        "jsonl",
        [{"prompt": "w1", "response": ""}, {"prompt": "w1", "response": ""}],
        "expected rollouts of at least 1 prompts, got 0 in the steps taken (2 rows left out: "
        "no response tokens)",
    ),
    "jsonl: no rows": ("jsonl", [], "expected rollouts of at least 1 prompts, got 0"),
    "ms-swift: lists of two lengths": (
        "ms-swift",
        [{"step": ["1"], "prompt": ["w1", "w2"], "completion": ["w1", "w2"]}],
        "line 1: expected lists of one length in step, prompt, completion, got 1, 2, 2",
    ),
    "ms-swift: step of words": (
        "ms-swift",
        [{"step": ["one"], "prompt": ["w1"], "completion": ["w1"]}],
        "line 1, entry 0: expected a whole number from 0 in `step`, got str 'one'",
    ),
    "nemo-rl: mask of another length": (
        "nemo-rl",
        [NEMO | {"token_loss_mask": [1]}],
        "line 1: expected 3 entries in `token_loss_mask`",
    ),
    "nemo-rl: loss from the first token": (
        "nemo-rl",
        [NEMO | {"token_loss_mask": [1, 1, 0]}],
        "got 0 in the steps taken (1 rows left out: no prompt tokens)",
    ),
    "slime: longer than it is": (
        "slime",
        [SOUND_SAMPLE | {"response_length": 4}],
        "sample 0: expected at least 4 tokens, prompt and response, got 3",
    ),
    "slime: mask of another length": (
        "slime",
        [SOUND_SAMPLE, SOUND_SAMPLE | {"loss_mask": [1, 1]}],
        "sample 1: expected 1 entries in `loss_mask`",
    ),
    "slime: no mapping": ("slime", [3], "sample 0: expected a mapping, got int '3'"),
}
NAMES = {
    "verl": "1.jsonl",
    "nemo-rl": "train_data_step1.jsonl",
    "ms-swift": "completions.jsonl",
    "jsonl": "rows.jsonl",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_rollout_is_refused_by_its_row(name: str, student: str, tmp_path: Path) -> None:
    form, rows, complaint = MISTAKES[name]
    if form == "slime":
        write_slime(tmp_path / "in", 0, rows)
    else:
        write_lines(tmp_path / "in" / NAMES[form], rows)
    with pytest.raises(InputError) as raised:
        take(form, tmp_path / "in", student)
    assert complaint in str(raised.value)
    assert not (tmp_path / "made.parquet").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"prompt": "w1"\n', "line 1: expected JSON, got damage (Expecting ',' delimiter"),
        (b'{"prompt": "w1", "response": "w2"}\n{"pro\xff', "expected a readable JSONL file in UTF"),
        (b"[" * 100_000, "line 1: expected JSON, got damage ("),
    ],
)
def test_damaged_lines_are_refused(
    content: bytes, complaint: str, student: str, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError) as raised:
        take("jsonl", tmp_path / "rows.jsonl", student)
    assert complaint in str(raised.value)


def test_sources_that_are_not_there_are_refused(student: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("mine")
    for form, source, complaint in (
        ("trl", "in", "in: expected a file, or a folder with completions_*.parquet, got a folder "),
        (
            "slime",
            "none",
            "none: expected a file, or a folder with *.pt, got no such file or folder",
        ),
        ("grpo", "in", "FORMAT: expected one of trl, verl, slime, nemo-rl, paper, ms-swift, jsonl"),
        ("paper", "in/notes.txt", "notes.txt: expected a readable Parquet file, got damage"),
        ("slime", "in/notes.txt", "notes.txt: expected a "),
    ):
        with pytest.raises(InputError) as raised:
            take(form, tmp_path / source, student)
        assert complaint in str(raised.value)


def test_too_few_prompts_name_the_ways_out(bank: Bank, student: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        take("slime", to_slime(bank, tmp_path / "o"), student, num_prompts=9)
    assert "expected rollouts of at least 9 prompts, got 6 in the steps taken" in str(raised.value)
    assert "take more steps with --step" in str(raised.value)


def test_a_student_of_another_tokenizer_is_refused(
    bank: Bank, student: str, stranger: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected a model of the tokenizer"):
        take("slime", to_slime(bank, tmp_path / "o"), student, student=stranger)


def test_a_folder_without_a_tokenizer_is_refused(
    bank: Bank, checkpoint: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected a tokenizer, got none"):
        take("slime", to_slime(bank, tmp_path / "o"), checkpoint)


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "sprung")


class PlainSample:
    """A sample saved as an object, as no version of slime does."""


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_a_pickle_runs_nothing(protocol: int | None, student: str, tmp_path: Path) -> None:
    trap = {"samples": [SOUND_SAMPLE | {"metadata": Trap(tmp_path / "sprung")}]}
    path = tmp_path / "0.pt"
    if protocol is None:
        torch.save(trap, path)
    else:
        path.write_bytes(pickle.dumps(trap, protocol))
    with pytest.raises(InputError) as raised:
        take("slime", path, student)
    assert "expected a pickle of plain values, tensors and arrays, got " in str(raised.value)
    assert "it was not loaded" in str(raised.value)
    assert not (tmp_path / "sprung").exists()
    torch.load(path, weights_only=False) if protocol is None else pickle.loads(path.read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works where nobody looks


def test_objects_in_a_pickle_are_named(student: str, tmp_path: Path) -> None:
    torch.save({"samples": [PlainSample()]}, tmp_path / "0.pt")
    with pytest.raises(InputError, match="PlainSample"):
        take("slime", tmp_path / "0.pt", student)
