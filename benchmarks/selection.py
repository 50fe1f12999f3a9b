"""What choosing tokens costs beside a training step of on-policy distillation.

A step: the student samples rollouts, the teacher reads them, the student reads them with gradient,
full-vocabulary reverse KL over all positions, backward. Beside it, on the hidden states and logits
that the step has anyway:

    signals from logits   `signals_from_logprobs`, both models' logits being at hand
    signals from states   `signals_from_states`: both heads' products are made again, chunk by chunk
    select_tokens         the selector alone, `teachability+entropy` at 5 %, which needs most sorts
    describe              the numbers of the log

Parts take turns in one process, timed by CPU time with one thread; shares are medians over rounds
of the ratio within a round, once of a step without generation and once of the whole step. Two
pairs: the embedded one at 24 rollouts of 192 tokens, and random Qwen3 models of Qwen's vocabulary,
whose bodies are as small as a CPU asks for (`--hidden`, `--layers`); of a model of the usual size
everything here is a smaller share. Of that pair no rollout is sampled. Last, the selector alone for
batches up to 65,536 positions, whose time does not depend on the models.

Run: `OMP_NUM_THREADS=1 python benchmarks/selection.py [--quick]`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from measure import VOCABULARY
from timing import Table, Work, interleaved
from torch import Tensor
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from diagnostics.bank.sample import sample_batch
from diagnostics.embedded.pair import STUDENT, TEACHER
from diagnostics.embedded.problems import make_sheet
from diagnostics.models.files import open_model, require_tokenizer
from diagnostics.models.heads import Head, head_of
from diagnostics.models.weights import final_hidden, load_weights
from diagnostics.selection import (
    TokenSignals,
    describe,
    row_hashes,
    select_tokens,
    signals_from_logprobs,
    signals_from_states,
)

SELECTOR, BUDGET, GOAL = "teachability+entropy", 0.05, 0.02
GENERATION, STEP = "generation", ("teacher forward", "student forward, loss and backward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rollouts of a student: ids and attention (batch, length), `valid` (batch, time) responses."""

    ids: Tensor
    seen: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both models with their heads."""

    student: PreTrainedModel
    teacher: PreTrainedModel
    student_head: Head
    teacher_head: Head


def hidden(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Final hidden states (batch, time, hidden) from which the response's tokens are predicted."""
    width = batch.valid.shape[1]
    return final_hidden(model, batch.ids, batch.seen)[:, -width - 1 : -1]


def reverse_kl(student: Tensor, teacher: Tensor, valid: Tensor) -> Tensor:
    """Mean KL(p || p_T) of logits (batch, time, vocab) over valid positions, nats."""
    log_s, log_t = student[valid].log_softmax(1), teacher[valid].log_softmax(1)
    return (log_s.exp() * (log_s - log_t)).sum(1).mean()


def parts(pair: Pair, batch: Batch) -> dict[str, Work]:
    """The parts of a step without generation, and what choosing tokens adds, by name."""

    def logits(model: PreTrainedModel) -> Tensor:
        return model.lm_head(hidden(model, batch))

    @torch.no_grad()
    def read() -> Tensor:
        return logits(pair.teacher)

    teacher = read()

    def learn() -> None:
        pair.student.zero_grad()
        reverse_kl(logits(pair.student), teacher, batch.valid).backward()

    with torch.no_grad():
        states = [hidden(model, batch) for model in (pair.student, pair.teacher)]
        student = logits(pair.student)
    signals = signals_from_logprobs(student, teacher, batch.valid)

    def choose() -> object:
        rows = row_hashes(batch.ids, batch.seen.bool())
        return select_tokens(SELECTOR, BUDGET, signals, batch.valid, rows=rows)

    kept = select_tokens(SELECTOR, BUDGET, signals, batch.valid)
    heads = (pair.student_head, pair.teacher_head)
    return {
        STEP[0]: read,
        STEP[1]: learn,
        "signals from logits": lambda: signals_from_logprobs(student, teacher, batch.valid),
        "signals from states": lambda: signals_from_states(*states, *heads, batch.valid),
        "select_tokens": choose,
        "describe": lambda: describe(kept, signals, batch.valid),
    }


def shares(title: str, seconds: Mapping[str, Sequence[float]]) -> str:
    """A row a part: its median time, and its share of a step without and with generation."""
    generation = seconds.get(GENERATION)
    bare = [sum(pair) for pair in zip(*(seconds[name] for name in STEP), strict=True)]
    lines = [
        f"### {title}",
        "",
        "| part | ms | share of a step without generation | with generation |",
        "|---|---|---|---|",
    ]
    for name, found in seconds.items():
        whole = (
            None if generation is None else [a + b for a, b in zip(bare, generation, strict=True)]
        )
        cells = [
            "–"
            if of is None
            else f"{100 * median(a / b for a, b in zip(found, of, strict=True)):.2f} %"
            for of in (None if name == GENERATION else bare, whole)
        ]
        lines.append(f"| {name} | {1e3 * median(found):.2f} | {' | '.join(cells)} |")
    found = median(a / b for a, b in zip(seconds["select_tokens"], bare, strict=True))
    word = "met" if found <= GOAL else "missed"
    lines += ["", f"Goal, select_tokens within {GOAL:.0%} of a step without generation: {word}."]
    return "\n".join([*lines, ""])


def embedded(rollouts: int, length: int, rounds: int) -> str:
    """The embedded pair, generation included."""
    files = [open_model(str(folder)) for folder in (STUDENT, TEACHER)]
    student, teacher = (load_weights(file, "float32", "cpu") for file in files)
    tokenizer = require_tokenizer(files[0])
    rng = random.Random(0)
    prompts = [tokenizer(make_sheet(rng).prompt)["input_ids"] for _ in range(rollouts)]

    def sample() -> Batch:
        end = tokenizer.eos_token_id
        options = {"max_new_tokens": length, "temperature": 1.0, "seed": 0}
        found = sample_batch(student, prompts, **options, end=None, pad=end)
        return padded(prompts, found.response_ids, found.valid)

    pair = Pair(
        student=student,
        teacher=teacher,
        student_head=head_of(student, "student"),
        teacher_head=head_of(teacher, "teacher"),
    )
    batch = sample()
    seconds = interleaved({GENERATION: sample} | parts(pair, batch), rounds)
    return shares(f"Embedded pair, {rollouts} rollouts of {length} tokens", seconds)


def padded(prompts: Sequence[Sequence[int]], response: Tensor, valid: Tensor) -> Batch:
    """Prompts padded on the left, and responses after them."""
    width = max(len(ids) for ids in prompts)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    seen = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        seen[row, width - len(prompt) :] = 1
    both = torch.cat([ids, response], dim=1), torch.cat([seen, valid.long()], dim=1)
    return Batch(ids=both[0], seen=both[1], valid=valid)


def wide(size: tuple[int, int], shape: tuple[int, int], rounds: int) -> str:
    """Random models of Qwen's vocabulary, `size` hidden and layers, a batch of `shape`."""
    torch.manual_seed(0)
    width, layers = size
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        head_dim=64,
    )
    models = [Qwen3ForCausalLM(config).eval() for _ in range(2)]
    pair = Pair(
        student=models[0],
        teacher=models[1],
        student_head=head_of(models[0], "student"),
        teacher_head=head_of(models[1], "teacher"),
    )
    ids = torch.randint(0, VOCABULARY, (shape[0], shape[1] + 1))
    batch = Batch(ids=ids, seen=torch.ones_like(ids), valid=torch.ones(shape, dtype=torch.bool))
    title = f"Random Qwen3, V = {VOCABULARY:,}, hidden {width}, {layers} layers, {shape} positions"
    return shares(title, interleaved(parts(pair, batch), rounds))


def sizes(counts: Sequence[int], rounds: int) -> str:
    """The selector alone, by batch."""
    names = ("entropy", "disagreement", "compatibility", "kl", "reverse_kl")
    work: dict[str, Work] = {}
    for count in counts:
        drawn = {name: torch.rand(count // 64, 64, dtype=torch.float64) for name in names}
        signals = TokenSignals(**drawn, vocabulary=VOCABULARY)
        mask = torch.ones(count // 64, 64, dtype=torch.bool)
        work[f"{count:,} positions"] = lambda s=signals, m=mask: select_tokens(
            SELECTOR, BUDGET, s, m
        )
    return Table(
        title="select_tokens alone",
        positions=max(counts),
        of=next(iter(work)),
        seconds=interleaved(work, rounds),
        unit="ms",
    ).markdown()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small batches, one round")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if given.quick else given.rounds
    print(embedded(*((4, 32) if given.quick else (24, 192)), rounds), flush=True)
    body = (64, 1) if given.quick else (given.hidden, given.layers)
    print(wide(body, (1, 16) if given.quick else (4, 64), rounds), flush=True)
    print(sizes((4608, 16_384, 65_536), rounds), flush=True)


if __name__ == "__main__":
    main()
