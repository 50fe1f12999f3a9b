"""A training for `torchrun`: ranked_training.py SETTINGS.json OUT DUMP; ranks dump their batches.

Over gloo on the CPU. DUMP gets one JSON file a rank: prompts, responses and masks, a list a step.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from doubles import prompts_of

from diagnostics.models.files import open_model
from diagnostics.training.distill import distill
from diagnostics.training.settings import TrainSettings
from diagnostics.training.trainer import MaskedDistillationTrainer

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    task, out, dump = (Path(word) for word in sys.argv[1:4])
    words = json.loads(task.read_text())
    noted: list[dict[str, Any]] = []
    original = MaskedDistillationTrainer._generate_and_score_completions

    def generate(self: MaskedDistillationTrainer, inputs: Any) -> dict[str, Any]:
        batch = original(self, inputs)
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "tool_mask")
        noted.append({name: batch[name].tolist() for name in names})
        (dump / f"{self.accelerator.process_index}.json").write_text(json.dumps(noted))
        return batch

    MaskedDistillationTrainer._generate_and_score_completions = generate
    student, teacher = (open_model(words.pop(name)) for name in ("student", "teacher"))
    distill(student, teacher, prompts_of(24), TrainSettings(**words), out)
