"""Token ids from text, for trainers that wrote no ids.

Encoding what was decoded is not the inverse of sampling: one text has many token sequences, and the
student may have drawn another than the tokenizer's. What can be checked is checked: whether the ids
decode to the text, and whether a prompt's chat markers, dropped as special tokens, can be put back
so that dropping them again gives the text that was found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from diagnostics.bank.prompts import Messages
from diagnostics.bank.sample import render_prompt
from diagnostics.errors import InputError

FIRST, SECOND = "FIRSTCONTENT", "SECONDCONTENT"
ONE_TURN: tuple[Messages, ...] = (
    [{"role": "user", "content": FIRST}],
    [{"role": "system", "content": FIRST}, {"role": "user", "content": SECOND}],
)
TEMPLATES: tuple[dict[str, bool], ...] = ({}, {"enable_thinking": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Token ids of a rollout. `same_text`: the response's ids decode to the text that was given."""

    prompt_ids: list[int]
    response_ids: list[int]
    same_text: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffold:
    """What a chat template leaves around a prompt when special tokens are dropped.

    Fields: `pattern` of the whole text, a group a message; `messages` it was made of; `options` of
    the template; `seams` lines that only the template writes.
    """

    pattern: re.Pattern[str]
    messages: Messages
    options: dict[str, bool]
    seams: frozenset[str]


def recover(
    prompt: str, response: str | None, tokenizer: PreTrainedTokenizerBase, *, plain: bool
) -> Recovered:
    """Ids of a prompt's text and of the response after it.

    Both are encoded as one text where that leaves the prompt's ids as they are, so that a response
    gets no space it did not begin with; `plain` text gets the tokenizer's own special tokens.
    """
    start = tokenizer.bos_token
    special = plain and not (start and prompt.startswith(start))
    prompt_ids = list(tokenizer(prompt, add_special_tokens=special)["input_ids"])
    if response is None:
        return Recovered(prompt_ids=prompt_ids, response_ids=[], same_text=True)
    both = list(tokenizer(prompt + response, add_special_tokens=special)["input_ids"])
    own = list(tokenizer(response, add_special_tokens=False)["input_ids"])
    joined = both[: len(prompt_ids)] == prompt_ids
    response_ids = both[len(prompt_ids) :] if joined else own
    said = tokenizer.decode(own, clean_up_tokenization_spaces=False)
    return Recovered(prompt_ids=prompt_ids, response_ids=response_ids, same_text=said == response)


def scaffolds(tokenizer: PreTrainedTokenizerBase, *, bare: bool) -> list[Scaffold]:
    """The scaffolds of a tokenizer's chat template; none without one.

    `bare` takes one that leaves no visible word too: then every text would fit, which is right
    only where all prompts are known to be chats.
    """
    found = []
    for messages in ONE_TURN if tokenizer.chat_template else ():
        for options in TEMPLATES:
            left = _dropped(messages, tokenizer, options)
            if left is not None:
                parts = re.split(f"{FIRST}|{SECOND}", left)
                if len(parts) == len(messages) + 1 and (bare or "".join(parts).strip()):
                    found.append(_scaffold(parts, messages, options))
    return found


def _scaffold(parts: list[str], messages: Messages, options: dict[str, bool]) -> Scaffold:
    seams = (line.strip() for part in parts[1:] for line in part.splitlines())
    return Scaffold(
        pattern=re.compile("(.*)".join(map(re.escape, parts)), re.DOTALL),
        messages=messages,
        options=options,
        seams=frozenset(filter(None, seams)),
    )


def restored_chat(
    text: str, tokenizer: PreTrainedTokenizerBase, known: list[Scaffold]
) -> str | None:
    """The rendered prompt that leaves `text` when its special tokens are dropped; None if unsure.

    A text of several turns fits the scaffold of one: it is given up when a message holds a line
    that only the template writes.
    """
    for scaffold in known:
        found = scaffold.pattern.fullmatch(text)
        if found is None or any(
            line.strip() in scaffold.seams for part in found.groups() for line in part.splitlines()
        ):
            continue
        messages = [
            {"role": m["role"], "content": part}
            for m, part in zip(scaffold.messages, found.groups(), strict=True)
        ]
        if _dropped(messages, tokenizer, scaffold.options) == text:
            return render_prompt(messages, tokenizer, **scaffold.options)
    return None


def _dropped(
    messages: Messages, tokenizer: PreTrainedTokenizerBase, options: dict[str, bool]
) -> str | None:
    """Rendered messages without special tokens; None where the template does not take them."""
    try:
        rendered = render_prompt(messages, tokenizer, **options)
    except InputError:
        return None
    ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
