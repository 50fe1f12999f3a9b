"""How many held-out problems a model answers right, exactly.

Run `python -m diagnostics.embedded.evaluate MODEL …`. Decoding is greedy, or sampled at temperature
1 with `--sample`. A problem counts as right when the response states its answer in the answer line.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from diagnostics.embedded.problems import count_right, sheets

EVALUATION_SEED = 20
LONGEST = 450  # tokens; the longest reference solutions have about 400


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Fields: `right` of `total` held-out problems."""

    right: int
    total: int

    @property
    def share(self) -> float:
        """right / total."""
        return self.right / self.total


@torch.no_grad()
def accuracy(folder: Path, *, count: int = 100, batch: int = 50, sample: bool = False) -> Accuracy:
    """Right answers of the model in `folder` on the first `count` held-out sheets."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    chosen = list(islice(sheets(EVALUATION_SEED, held_out=True), count))
    torch.manual_seed(EVALUATION_SEED)
    right = 0
    for start in range(0, count, batch):
        group = chosen[start : start + batch]
        inputs = tokenizer([sheet.prompt for sheet in group], return_tensors="pt", padding=True)
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=LONGEST,
            do_sample=sample,
            top_k=0 if sample else None,
        )
        responses = ids[:, inputs["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        right += sum(count_right(text, s.answers) for text, s in zip(texts, group, strict=True))
    return Accuracy(right=right, total=sum(len(sheet.answers) for sheet in chosen))


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
