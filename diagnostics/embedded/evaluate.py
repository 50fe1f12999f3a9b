"""How many held-out problems a model answers right, exactly; and that as downstream scores.

Run `python -m diagnostics.embedded.evaluate MODEL …`. Decoding is greedy, or sampled at temperature
1 with `--sample`. A problem counts as right when the response states its answer in the answer line.

`embedded_scores` asks the same problems once a seed, sampled at temperature 1, so that the spread
over seeds is the noise of sampling alone. Its benchmarks are the numbers of steps; the categories
of Table 13 are the kinds of operation, each problem in one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from diagnostics.downstream.records import Arm, Score, to_records
from diagnostics.embedded.pair import STUDENT
from diagnostics.embedded.problems import Problem, Sheet, count_right, read_answers, sheets
from diagnostics.models.files import open_model
from diagnostics.models.weights import load_weights

EVALUATION_SEED = 20
LONGEST = 450  # tokens; the longest reference solutions have about 400
SETTING = "embedded pair"
BASE_ARM = Arm(setting=SETTING, selector="base", budget=None)
OPERATIONS = "operations"  # the benchmark whose categories are kinds of operation


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Fields: `right` of `total` held-out problems."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """right / total."""
        return self.right / self.total


def accuracy(folder: Path, *, count: int = 100, batch: int = 50, sample: bool = False) -> Accuracy:
    """Right answers of the model in `folder` on the first `count` held-out sheets."""
    model, tokenizer = _load(folder)
    chosen = _held_out(count)
    torch.manual_seed(EVALUATION_SEED)
    right = 0
    for start in range(0, count, batch):
        group = chosen[start : start + batch]
        texts = _responses(model, tokenizer, group, sample=sample)
        right += sum(count_right(text, s.answers) for text, s in zip(texts, group, strict=True))
    return Accuracy(right=right, total=sum(len(sheet.answers) for sheet in chosen))


def embedded_scores(
    folder: Path, *, seeds: int = 5, count: int = 40, arm: Arm = BASE_ARM
) -> pd.DataFrame:
    """Records of the model in `folder` on the first `count` held-out sheets, one call a seed.

    Columns of `downstream.records`, and `right` of `total` problems; `value` = 100 right / total,
    per cent. Benchmarks `steps_2` to `steps_6`, and the categories of `operations`: `add_subtract`,
    `multiply`, `divide`, `multiply_divide`, by which of the latter two a problem has. Seed s is
    torch's before the call, so it does not depend on how many seeds there are.
    """
    model, tokenizer = _load(folder)
    chosen = _held_out(count)
    scores: list[Score] = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        texts = _responses(model, tokenizer, chosen, sample=True)
        scores += score_answers(_answered(texts, chosen), seed, str(folder))
    records = to_records(arm, scores)
    right = (records["value"] * records["total"] / 100).round().astype("int64")
    return records.assign(right=right)


def score_answers(answered: Sequence[tuple[Problem, bool]], seed: int, source: str) -> list[Score]:
    """Scores of one seed: `answered` are problems with whether each was answered right."""
    groups: dict[tuple[str, str], list[bool]] = {}
    for problem, right in sorted(answered, key=lambda pair: pair[0].steps):
        groups.setdefault((f"steps_{problem.steps}", ""), []).append(right)
        groups.setdefault((OPERATIONS, operation(problem)), []).append(right)
    return [
        Score(
            benchmark=benchmark,
            category=category,
            seed=seed,
            value=100 * sum(right) / len(right),
            total=len(right),
            metric="exact",
            source=source,
        )
        for (benchmark, category), right in groups.items()
    ]


def operation(problem: Problem) -> str:
    """The kind of operation of a problem: by whether it multiplies, divides, both or neither."""
    names = [name for sign, name in (("*", "multiply"), ("/", "divide")) if sign in problem.signs]
    return "_".join(names) or "add_subtract"


def _answered(texts: Sequence[str], chosen: Sequence[Sheet]) -> list[tuple[Problem, bool]]:
    return [pair for text, s in zip(texts, chosen, strict=True) for pair in _marked(text, s)]


def _marked(text: str, sheet: Sheet) -> Iterator[tuple[Problem, bool]]:
    stated = read_answers(text)
    for number, problem in enumerate(sheet.problems, 1):
        yield problem, stated.get(number) == problem.answer


def _held_out(count: int) -> list[Sheet]:
    return list(islice(sheets(EVALUATION_SEED, held_out=True), count))


def _load(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model, with the pair's tokenizer where its folder has none, as trained checkpoints have."""
    model = load_weights(open_model(str(folder)), "float32", "cpu")
    named = folder if (folder / "tokenizer.json").is_file() else STUDENT
    return model, PreTrainedTokenizerFast.from_pretrained(named, padding_side="left")


@torch.no_grad()
def _responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    group: Sequence[Sheet],
    *,
    sample: bool,
) -> list[str]:
    """One response a sheet, greedy or sampled at temperature 1, in one batch."""
    inputs = tokenizer([sheet.prompt for sheet in group], return_tensors="pt", padding=True)
    ids = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=LONGEST,
        do_sample=sample,
        top_k=0 if sample else None,
    )
    responses = ids[:, inputs["input_ids"].shape[1] :]
    texts: list[str] = tokenizer.batch_decode(responses, skip_special_tokens=True)
    return texts


def main() -> None:
    """Prints the accuracy of each model named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--sample", action="store_true")
    options = parser.parse_args()
    for folder in options.models:
        found = accuracy(folder, count=options.count, sample=options.sample)
        print(f"{folder}: {found.right} of {found.total} right ({found.share:.1%})", flush=True)


if __name__ == "__main__":
    main()
