"""A bank from the rollouts that a trainer wrote.

    files -> rows (`formats`) -> steps, prompts -> token ids (`recover`) -> bank

Ids that the trainer wrote are taken as they are (`imported`). Ids made again from text
(`retokenized`) may differ from those the student drew; how many there are goes with the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from diagnostics.bank.contexts import Bank, BankInfo, Rollout, write_bank
from diagnostics.bank.imports.formats import FORMATS, Format, files_of
from diagnostics.bank.imports.recover import recover, restored_chat, scaffolds
from diagnostics.bank.imports.steps import choose_steps, shown_steps
from diagnostics.bank.imports.written import Written
from diagnostics.bank.prompts import content_identity
from diagnostics.bank.sample import encode_prompt, render_prompt
from diagnostics.errors import InputError, one_of
from diagnostics.models.files import open_model, open_tokenizer, tokenizer_fingerprint

UNKNOWN = "unknown"  # the student of a bank that nobody named


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A bank and how it came about.

    Fields: `bank`; `steps` of the trainer that it holds, `steps_there` all that were found;
    `retokenized` contexts whose response ids come from text, of which `other_text` do not decode to
    it; `chats_restored` prompts whose dropped chat markers were put back, `chats_plain` those where
    that could not be done; `skipped` rows left out, by reason.
    """

    bank: Bank
    steps: tuple[int, ...]
    steps_there: tuple[int, ...]
    retokenized: int
    other_text: int
    chats_restored: int
    chats_plain: int
    skipped: dict[str, int]

    def notes(self) -> list[str]:
        """What one should know of the bank, a sentence each; none when all ids were written."""
        found = []
        if len(self.steps_there) > 1:
            found.append(
                f"step {shown_steps(self.steps)} of {shown_steps(self.steps_there)}"
                + (": rollouts of several students" if len(self.steps) > 1 else "")
            )
        if self.retokenized:
            found.append(
                f"{self.retokenized} of {len(self.bank)} responses were encoded from text: the "
                "student may have drawn other tokens for it, and an end token is lost"
            )
        if self.other_text:
            found.append(f"{self.other_text} of these do not decode to the text that was written")
        if self.chats_restored:
            found.append(f"{self.chats_restored} prompts got back the chat markers they had lost")
        if self.chats_plain:
            found.append(
                f"{self.chats_plain} prompts are taken as plain text: their chat markers were "
                "dropped by the trainer and cannot be put back for sure"
            )
        found += [f"{count} rows left out: {why}" for why, count in sorted(self.skipped.items())]
        return found


def import_bank(
    form: str,
    source: Path | str,
    tokenizer: str,
    out: Path,
    *,
    student: str | None = None,
    step: str | None = None,
    num_prompts: int | None = None,
    max_response_tokens: int | None = None,
) -> Imported:
    """Freezes the rollouts of `source`, written in the format `form`, at `out`.

    `tokenizer` and `student` are MODELs; a student that is not named is unknown in the bank. `step`
    as in `choose_steps`; `num_prompts` the first so many prompts with all their rollouts. Raises
    InputError that names the file and row of the first value that cannot be right.
    """
    chosen_form = FORMATS[one_of(form, tuple(FORMATS), "FORMAT")]
    found = open_tokenizer(tokenizer)
    origin = _origin(student, found, tokenizer)
    rows, steps, there = read_rollouts(chosen_form, Path(source), step)
    skipped: Counter[str] = Counter()
    rows = _without_repeats(rows, skipped) if chosen_form.repeats else rows
    encode = _Encoder(found, origin["vocabulary"], chat=chosen_form.chat)
    made = [encode(row.cut(max_response_tokens)) for row in rows]
    kept = _numbered(_first_prompts(_sound(made, skipped), num_prompts, str(source), skipped))
    info = BankInfo(
        **origin,
        sampling={"format": form, "steps": steps, "max_response_tokens": max_response_tokens},
        seed=0,
        prompt_source=str(source),
    )
    bank = write_bank([frozen.rollout for frozen in kept], info, out)
    return _told(bank, kept, steps, there, skipped)


def _told(
    bank: Bank,
    kept: Sequence[_Frozen],
    steps: Sequence[int],
    there: Sequence[int],
    skipped: Mapping[str, int],
) -> Imported:
    """The bank with the counts of what became of its rollouts."""
    return Imported(
        bank=bank,
        steps=tuple(steps),
        steps_there=tuple(there),
        retokenized=sum(frozen.rollout.token_source == "retokenized" for frozen in kept),
        other_text=sum(not frozen.same_text for frozen in kept),
        chats_restored=len({f.rollout.prompt_id for f in kept if f.chat == "restored"}),
        chats_plain=len({f.rollout.prompt_id for f in kept if f.chat == "plain"}),
        skipped=dict(skipped),
    )


def read_rollouts(
    form: Format, source: Path, step: str | None
) -> tuple[list[Written], list[int], list[int]]:
    """The rows of the chosen steps, these steps, and all that are there.

    Steps come from the files' names, so that no other file is opened; else from the rows.
    """
    files = files_of(form, source)
    named = [number for number, _ in files if number is not None]
    if named:
        chosen = choose_steps(named, step, str(source))
        rows = [row for number, path in files if number in chosen for row in form.read(path)]
        return rows, chosen, named
    rows = [row for _, path in files for row in form.read(path)]
    there = sorted({row.step for row in rows if row.step is not None})
    if not there and step is None:
        return rows, [], []
    chosen = choose_steps(there, step, str(source))
    return [row for row in rows if row.step in chosen], chosen, there


def _without_repeats(rows: Iterable[Written], skipped: Counter[str]) -> list[Written]:
    """Rows whose prompt and response stood in no earlier step; the others are counted."""
    first: dict[tuple[str, str | None], int | None] = {}
    kept = []
    for row in rows:
        told = (content_identity(row.prompt or ""), row.response)
        if first.setdefault(told, row.step) == row.step:
            kept.append(row)
        else:
            skipped["the same text as in an earlier step"] += 1
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frozen:
    """A rollout and what became of its text. `unfit` says why it cannot stand in a bank."""

    rollout: Rollout
    same_text: bool
    chat: str | None
    unfit: str | None


class _Encoder:
    """Makes rollouts of rows; one tokenizer, its chat scaffolds found once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, *, chat: bool) -> None:
        self.tokenizer, self.vocabulary, self.chat = tokenizer, vocabulary, chat
        self.scaffolds = scaffolds(tokenizer, bare=chat)

    def __call__(self, row: Written) -> _Frozen:
        prompt, chat = ("", None) if row.prompt_ids is not None else self._rendered(row)
        same_text, prompt_ids, response_ids = True, row.prompt_ids, row.response_ids
        if prompt_ids is None or response_ids is None:
            plain = isinstance(row.prompt, str) and chat != "restored"
            answer = row.response if response_ids is None else None
            found = recover(prompt, answer, self.tokenizer, plain=plain)
            prompt_ids = found.prompt_ids if prompt_ids is None else prompt_ids
            response_ids = found.response_ids if response_ids is None else response_ids
            same_text = found.same_text
        self._check(row, prompt_ids)
        self._check(row, response_ids)
        rollout = self._rollout(row, prompt_ids, response_ids)
        return _Frozen(rollout=rollout, same_text=same_text, chat=chat, unfit=_unfit(row, rollout))

    def _rendered(self, row: Written) -> tuple[str, str | None]:
        """A row's prompt as text, and what was done about chat markers it may have lost."""
        if not isinstance(row.prompt, str):
            return render_prompt(row.prompt or "", self.tokenizer), None
        back = restored_chat(row.prompt, self.tokenizer, self.scaffolds)
        if back is not None and back != row.prompt:
            return back, "restored"
        lost = self.chat and back is None and self.tokenizer.chat_template
        return row.prompt, "plain" if lost else None

    def _check(self, row: Written, ids: list[int]) -> None:
        """Refuses an id that the tokenizer does not have."""
        if ids and max(ids) >= self.vocabulary:
            raise InputError(
                where=row.where,
                expected=f"token ids from 0 to {self.vocabulary - 1}",
                got=str(max(ids)),
                fix="give the tokenizer of the student that wrote the rollouts",
            )

    def _rollout(self, row: Written, prompt_ids: list[int], response_ids: list[int]) -> Rollout:
        teacher = row.teacher_prompt
        return Rollout(
            prompt_id=row.prompt_id or content_identity(row.prompt or prompt_ids),
            sample_index=0,
            prompt_text=self.tokenizer.decode(prompt_ids),
            response_text=self.tokenizer.decode(response_ids),
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            loss_mask=[True] * len(response_ids) if row.loss_mask is None else row.loss_mask,
            sampled_logprob=row.logprobs,
            teacher_prompt_ids=None if teacher is None else encode_prompt(teacher, self.tokenizer),
            token_source="retokenized" if row.response_ids is None else "imported",
        )


def _unfit(row: Written, rollout: Rollout) -> str | None:
    """Why a rollout cannot stand in a bank; None where it can."""
    if row.skipped is not None:
        return row.skipped
    if not rollout.response_ids:
        return "no response tokens"
    if not any(rollout.loss_mask):
        return "no response token that counts"
    return None if rollout.prompt_ids else "no prompt tokens"


def _sound(made: Iterable[_Frozen], skipped: Counter[str]) -> Iterator[_Frozen]:
    """Those that can stand in a bank; the others are counted by reason."""
    for frozen in made:
        if frozen.unfit is None:
            yield frozen
        else:
            skipped[frozen.unfit] += 1


def _first_prompts(
    made: Iterable[_Frozen], count: int | None, source: str, skipped: Counter[str]
) -> list[_Frozen]:
    """The rollouts of the first `count` prompts. Raises InputError where there are fewer."""
    rows = list(made)
    prompts = list(dict.fromkeys(frozen.rollout.prompt_id for frozen in rows))
    if not rows or len(prompts) < (count or 1):
        left = ", ".join(f"{number} rows left out: {why}" for why, number in skipped.items())
        raise InputError(
            where=source,
            expected=f"rollouts of at least {count or 1} prompts",
            got=f"{len(prompts)} in the steps taken" + (f" ({left})" if left else ""),
            fix="ask for fewer with --num-prompts, or take more steps with --step",
        )
    wanted = set(prompts[:count])
    return [frozen for frozen in rows if frozen.rollout.prompt_id in wanted]


def _numbered(rows: Iterable[_Frozen]) -> list[_Frozen]:
    """Each rollout with its number among those of its prompt, in order."""
    seen: Counter[str] = Counter()
    numbered = []
    for frozen in rows:
        name = frozen.rollout.prompt_id
        numbered.append(replace(frozen, rollout=replace(frozen.rollout, sample_index=seen[name])))
        seen[name] += 1
    return numbered


def _origin(student: str | None, tokenizer: PreTrainedTokenizerBase, spec: str) -> dict[str, Any]:
    """Student, fingerprints and vocabulary for the bank. Refuses two tokenizers that differ."""
    stamp = tokenizer_fingerprint(tokenizer)
    if student is None:
        ids = max(tokenizer.get_vocab().values()) + 1
        names = {"student": UNKNOWN, "student_fingerprint": UNKNOWN}
        return names | {"tokenizer_fingerprint": stamp, "vocabulary": ids}
    files = open_model(student)
    own = files.tokenizer
    if own is not None and tokenizer_fingerprint(own) != stamp:
        raise InputError(
            where=f"--student {student}",
            expected=f"a model of the tokenizer {spec} ({stamp[:12]})",
            got=f"another tokenizer ({tokenizer_fingerprint(own)[:12]})",
            fix="give the tokenizer of the student that wrote the rollouts",
        )
    return {
        "student": student,
        "student_fingerprint": files.fingerprint,
        "tokenizer_fingerprint": stamp,
        "vocabulary": files.vocabulary,
    }
