"""How each trainer writes rollouts: the files of a folder, and the rows of a file.

| format | file | ids | what is lost |
|---|---|---|---|
| trl | completions/completions_00010.parquet: step, prompt, completion | no | special tokens |
| verl | 10.jsonl: input, output, score, step | no | special tokens, chat markers too |
| ms-swift | completions.jsonl: a dict of lists (or of values) a line | no | ids |
| slime | 10.pt: samples with tokens, response_length, loss_mask, rollout_log_probs | yes | |
| nemo-rl | train_data_step10.jsonl: token_ids, token_loss_mask, generation_logprobs | yes | |
| paper | context_bank.parquet: tokens (a JSON text), prompt_len, resp_len | yes | |
| jsonl | prompt or prompt_ids, response or response_ids, and what else a bank has | may | |

Not covered: answers of several turns known by text alone, images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diagnostics.bank.imports import written as w
from diagnostics.bank.imports.slime import load_samples
from diagnostics.bank.imports.written import Written
from diagnostics.bank.prompts import Messages, prompt_text
from diagnostics.errors import InputError
from diagnostics.files import read_parquet

Rows = Iterator[Written]
NOT_LEARNED = ("pending", "aborted", "failed")  # states of a slime sample without a whole answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A trainer's way of writing.

    Fields: `files` pattern of its files in a folder; `step` finds the step in a file's name, None
    where rows hold it; `read` makes rows of a file; `folder` below SOURCE where it may lie;
    `chat` every prompt went through the chat template and lost its special tokens; `repeats` a step
    that generated nothing is logged with the rollouts of the one before.
    """

    files: str
    read: Callable[[Path], Rows]
    step: str | None = None
    folder: str = "."
    chat: bool = False
    repeats: bool = False


def _read_trl(path: Path) -> Rows:
    for where, row in _table_rows(path):
        yield Written(
            where=where,
            step=w.whole_number(w.field(row, "step", where), where, "step"),
            prompt=_asked(w.field(row, "prompt", where), where, "prompt"),
            response=_answer(w.field(row, "completion", where), where, "completion"),
        )


def _read_verl(path: Path) -> Rows:
    for where, row in w.json_lines(path):
        yield Written(
            where=where,
            step=w.whole_number(w.field(row, "step", where), where, "step"),
            prompt=_asked(w.field(row, "input", where), where, "input"),
            response=_answer(w.field(row, "output", where), where, "output"),
        )


def _read_ms_swift(path: Path) -> Rows:
    for line, table in w.json_lines(path):
        step = "step" if "step" in table else "gen_step"
        names = (step, "prompt" if "prompt" in table else "messages", "completion")
        columns = [w.field(table, name, line) for name in names]
        if not isinstance(columns[2], list):  # newer versions write a row a line
            columns = [[column] for column in columns]
        for place, values in enumerate(_exploded(columns, names, line)):
            where = f"{line}, entry {place}"
            number, prompt, completion = values
            number = int(number) if isinstance(number, str) and number.isdigit() else number
            yield Written(
                where=where,
                step=w.whole_number(number, where, step),
                prompt=_asked(prompt, where, names[1]),
                response=_answer(completion, where, "completion"),
            )


def _exploded(columns: list[Any], names: tuple[str, ...], where: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a dict of lists. Raises InputError for lists of several lengths."""
    lists = [w.listed(c, where, name) for c, name in zip(columns, names, strict=True)]
    if len({len(column) for column in lists}) > 1:
        raise InputError(
            where=where,
            expected=f"lists of one length in {', '.join(names)}",
            got=", ".join(str(len(column)) for column in lists),
            fix="drop or mend the line",
        )
    return zip(*lists, strict=True)


def _read_slime(path: Path) -> Rows:
    for where, sample in load_samples(path):
        tokens = w.token_ids(w.field(sample, "tokens", where), where, "tokens")
        length = w.whole_number(w.field(sample, "response_length", where), where, "response_length")
        state = str(sample.get("status", "completed"))
        prompt_ids, response_ids = _split(tokens, len(tokens) - length, length, where)
        yield Written(
            where=where,
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            loss_mask=_given(sample, "loss_mask", w.mask, where, length),
            logprobs=_given(sample, "rollout_log_probs", w.logprobs, where, length),
            skipped=f"status {state}"
            if state in NOT_LEARNED
            else "removed by the trainer"
            if sample.get("remove_sample")
            else None,
        )


def _read_nemo_rl(path: Path) -> Rows:
    """The response reaches from the first to the last token with loss: padding has none."""
    for where, row in w.json_lines(path):
        tokens = w.token_ids(w.field(row, "token_ids", where), where, "token_ids")
        carried = w.field(row, "token_loss_mask", where)
        mask = w.mask(carried, len(tokens), where, "token_loss_mask")
        places = [place for place, kept in enumerate(mask) if kept]
        first, end = (places[0], places[-1] + 1) if places else (len(tokens), len(tokens))
        logprobs = _given(row, "generation_logprobs", w.logprobs, where, len(tokens))
        prompt_ids, response_ids = _split(tokens, first, end - first, where)
        yield Written(
            where=where,
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            loss_mask=mask[first:end],
            logprobs=None if logprobs is None else logprobs[first:end],
            skipped="sample_loss_mask 0" if row.get("sample_loss_mask", 1) == 0 else None,
        )


def _read_paper(path: Path) -> Rows:
    for where, row in _table_rows(path):
        tokens = w.field(row, "tokens", where)
        tokens = w.json_value(tokens, where) if isinstance(tokens, str) else tokens
        prompt, length = (
            w.whole_number(w.field(row, name, where), where, name)
            for name in ("prompt_len", "resp_len")
        )
        prompt_ids, response_ids = _split(
            w.token_ids(tokens, where, "tokens"), prompt, length, where
        )
        yield Written(where=where, prompt_ids=prompt_ids, response_ids=response_ids)


def _read_jsonl(path: Path) -> Rows:
    for where, row in w.json_lines(path):
        prompt_ids, response_ids = (
            _given(row, name, w.token_ids, where) for name in ("prompt_ids", "response_ids")
        )
        prompt = row.get("prompt") if prompt_ids is not None else w.field(row, "prompt", where)
        if response_ids is None:
            _no_lists_beside_text(row, where)
            response = _answer(w.field(row, "response", where), where, "response")
        length = len(response_ids or [])
        yield Written(
            where=where,
            step=_given(row, "step", w.whole_number, where),
            prompt=None if prompt is None else _asked(prompt, where, "prompt"),
            response=None if response_ids is not None else response,
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            loss_mask=_given(row, "loss_mask", w.mask, where, length),
            logprobs=_given(row, "sampled_logprob", w.logprobs, where, length),
            prompt_id=_given(row, "prompt_id", _name, where),
            teacher_prompt=_given(row, "teacher_prompt", _asked, where),
        )


def _no_lists_beside_text(row: dict[str, Any], where: str) -> None:
    """Refuses a mask or log-probabilities of tokens whose ids are not known."""
    for name in ("loss_mask", "sampled_logprob"):
        if row.get(name) is not None:
            raise InputError(
                where=where,
                expected=f"`response_ids` beside `{name}`, which counts tokens",
                got="text alone",
                fix=f"write the ids too, or leave `{name}` out",
            )


def _table_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, row in enumerate(read_parquet(path).to_pylist()):
        yield f"{path}, row {number}", row


def _given(
    row: dict[str, Any], name: str, check: Callable[..., Any], where: str, *about: Any
) -> Any:
    """A value that a row may leave out, checked."""
    return None if row.get(name) is None else check(row[name], *about, where, name)


def _name(value: Any, where: str, name: str) -> str:
    """An identity: text, or a whole number as text."""
    return w.text(str(value) if isinstance(value, int) else value, where, name)


def _asked(value: Any, where: str, name: str) -> str | Messages:
    """A prompt as text or messages."""
    found = prompt_text(value, where, name)
    for part in [found] if isinstance(found, str) else [m["content"] for m in found]:
        w.text(part, where, name)
    return found


def _split(tokens: list[int], prompt: int, length: int, where: str) -> tuple[list[int], list[int]]:
    """Prompt and response of one list of ids; what follows is padding."""
    if prompt < 0 or prompt + length > len(tokens):
        raise InputError(
            where=where,
            expected=f"at least {max(prompt, 0) + length} tokens, prompt and response",
            got=str(len(tokens)),
            fix="drop or mend the row",
        )
    return tokens[:prompt], tokens[prompt : prompt + length]


def _answer(value: Any, where: str, name: str) -> str:
    """A response as text: a text, or the one message of an assistant that says nothing else."""
    if isinstance(value, str):
        return w.text(value, where, name)
    message = value[0] if isinstance(value, list) and len(value) == 1 else {}
    said = {k for k, v in message.items() if v} if isinstance(message, dict) else set()
    if said != {"role", "content"} or message["role"] != "assistant":
        raise InputError(
            where=where,
            expected=f"text or one assistant message in `{name}`",
            got=f"{len(value)} messages" if isinstance(value, list) else type(value).__name__,
            fix="write turns and tool calls as token ids with a loss_mask, format jsonl",
        )
    return w.text(message["content"], where, name)


FORMATS = {
    "trl": Format(
        files="completions_*.parquet",
        step=r"completions_(\d+)$",
        folder="completions",
        read=_read_trl,
        repeats=True,
    ),
    "verl": Format(files="*.jsonl", step=r"^(\d+)$", read=_read_verl, chat=True),
    "slime": Format(files="*.pt", step=r"^(?!.*eval_\d+$).*?(\d+)$", read=_read_slime),
    "nemo-rl": Format(
        files="train_data_step*.jsonl", step=r"^train_data_step(\d+)$", read=_read_nemo_rl
    ),
    "paper": Format(files="context_bank.parquet", read=_read_paper),
    "ms-swift": Format(files="completions.jsonl", read=_read_ms_swift, repeats=True),
    "jsonl": Format(files="*.jsonl", read=_read_jsonl),
}


def files_of(form: Format, source: Path) -> list[tuple[int | None, Path]]:
    """The files of a source with their steps, by step and name. SOURCE may be one file.

    Raises InputError when there are none.
    """
    if source.is_file():
        return [(_step_of(form, source), source)]
    folder = source / form.folder if (source / form.folder).is_dir() else source
    found = [(_step_of(form, path), path) for path in sorted(folder.glob(form.files))]
    if form.step is not None:
        found = [(step, path) for step, path in found if step is not None]
    if not found:
        names = sorted(p.name for p in folder.iterdir())[:6] if folder.is_dir() else []
        raise InputError(
            where=str(source),
            expected=f"a file, or a folder with {form.files}",
            got=f"a folder with {', '.join(names) or 'nothing'}"
            if folder.is_dir()
            else "no such file or folder",
            fix="check the path and the format",
        )
    return sorted(found, key=lambda pair: (-1 if pair[0] is None else pair[0], pair[1].name))


def _step_of(form: Format, path: Path) -> int | None:
    found = None if form.step is None else re.search(form.step, path.stem)
    return None if found is None else int(found[1])
