"""Prompts for self-distillation: the student sees a question, the teacher its solution as well.

    python examples/worked_solutions.py QUESTIONS.jsonl --out prompts.jsonl

QUESTIONS has a line a problem with `question` and `answer` (as GSM8K has); the result has `prompt`
and `teacher_prompt`, both chat messages, for `diagnostics bank build` and `diagnostics train`.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

SHOWN = (
    "{question}\n\nA worked solution, for you alone:\n{answer}\n\nAnswer the question step by step."
)
ASKED = "{question}\n\nAnswer the question step by step."
CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's annotations


def prompts(problems: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """One row a problem: `prompt` and `teacher_prompt`, a single message of the user each."""
    for problem in problems:
        answer = CALCULATOR.sub("", problem["answer"]).replace("####", "Answer:")
        words = {"question": problem["question"], "answer": answer}
        yield {
            "prompt": [{"role": "user", "content": ASKED.format(**words)}],
            "teacher_prompt": [{"role": "user", "content": SHOWN.format(**words)}],
        }


def main() -> None:
    """Reads the problems and writes the prompts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", type=Path, help="JSONL with `question` and `answer`")
    parser.add_argument("--out", type=Path, required=True, help="JSONL of prompts")
    options = parser.parse_args()
    with options.questions.open(encoding="utf-8") as lines:
        rows = list(prompts(json.loads(line) for line in lines))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    options.out.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(rows)} prompts")


if __name__ == "__main__":
    main()
