"""What a report says of how its runs were scored: dtype, quantised models, dropped mass, noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from diagnostics.files import sha256_text
from diagnostics.report.chapters import Note
from diagnostics.report.tables.views import NOT_MEASURED, number
from diagnostics.scoring.run import BATCH, START, TEACHER, Run
from diagnostics.statistics.analyses.noise import NoiseFloor, counts_against

LARGE_DROP = 1e-3  # dropped probability mass that is counted position by position


def describe(run: Run, floors: Sequence[NoiseFloor]) -> dict[str, Any]:
    """A run's identity and its scoring, for `results.json` and the page."""
    manifest = run.manifest
    stamp = [manifest["bank"]["digest"], manifest["teacher"], manifest["student"]]
    dtype = manifest["settings"]["dtype"]
    return {
        "name": run.name,
        "bank_digest": manifest["bank"]["digest"],
        "run_digest": sha256_text(repr((stamp, manifest["checkpoints"], manifest["settings"]))),
        "teacher": manifest["teacher"],
        "student": manifest["student"],
        "checkpoints": manifest["checkpoints"],
        "settings": manifest["settings"],
        "libraries": manifest["libraries"],
        "steps": run.steps,
        "vocabulary": manifest["vocabulary"],
        "dropped": {model: _dropped(run, model) for model in (TEACHER, START, *run.checkpoints)},
        "noise": [asdict(f) | {"counts": counts_against(f.kind, dtype)} for f in floors],
    }


def scored_in(record: Mapping[str, Any]) -> str:
    """Dtype of the forward passes, kernel of the divergences."""
    settings = record["settings"]
    return f"{settings['dtype']}, {settings['kernel']}"


def notes(record: Mapping[str, Any]) -> list[Note]:
    """What a reader must know of a run's scoring, from its `describe` record."""
    noise = [Note(noise_sentence(n, record["settings"]["dtype"])) for n in record["noise"]]
    return [
        *(noise or [Note(f"Noise of scoring: {NOT_MEASURED}.")]),
        *_quantized(record),
        *_vocabularies(record),
    ]


def noise_sentence(noise: Mapping[str, Any], dtype: str) -> str:
    """One kind of noise in words, from a record's `noise`."""
    how = "another batch shape" if noise["kind"] == BATCH else noise["kind"]
    mean = noise["mean"]
    interval = f"[{number(mean['low'])}, {number(mean['high'])}]"
    text = (
        f"theta_0 scored a second time in {how}: this unchanged checkpoint shows |gain| up to "
        f"{number(noise['q99'])} at 99 % of positions (median {number(noise['q50'])}, largest "
        f"{number(noise['max'])}) and a mean gain of {number(mean['estimate'])} "
        f"{interval if mean['low'] == mean['low'] else '(no interval)'} nats, over "
        f"{noise['n_contexts']:,} contexts and {noise['n_positions']:,} positions."
    )
    if not noise["counts"]:
        return f"Cost of {how}: {text} This run was scored in {dtype}, so it is not in its gains."
    return f"Noise of scoring: {text}"


def _quantized(record: Mapping[str, Any]) -> Iterator[Note]:
    models = {TEACHER: record["teacher"], START: record["student"], **record["checkpoints"]}
    kinds = {name: stamp.get("quantization") for name, stamp in models.items()}
    found = [f"{name} ({kind})" for name, kind in kinds.items() if kind]
    if found:
        text = (
            f"Quantised: {', '.join(found)}. Every KL and gain here is of the quantised weights, "
            "not of the model that they were made from."
        )
        yield Note(text, warning=True)


def _vocabularies(record: Mapping[str, Any]) -> Iterator[Note]:
    """The shared range and the dropped mass, where the vocabularies differ."""
    sizes = record["vocabulary"]
    if sizes["shared"] == sizes["teacher"] == sizes["student"]:
        return
    dropped = dict(record["dropped"])
    sides = {name: dropped.pop(name) for name in (TEACHER, START)}
    if dropped:
        worst = max(dropped, key=lambda name: dropped[name]["max"])
        sides[f"{worst} (the most of the checkpoints)"] = dropped[worst]
    yield Note(
        f"Vocabularies differ: teacher {sizes['teacher']:,} ids, student {sizes['student']:,}. The "
        f"{sizes['shared']:,} shared ones were used, and each distribution renormalised on them. "
        f"Probability mass dropped by that: {'; '.join(map(_dropped_words, sides.items()))}.",
        warning=any(lost["n_large"] for lost in record["dropped"].values()),
    )


def _dropped_words(side: tuple[str, Mapping[str, Any]]) -> str:
    name, lost = side
    if lost["max"] == 0:
        return f"{name} none"
    return (
        f"{name} mean {number(lost['mean'])}, largest {number(lost['max'])}, more than "
        f"{LARGE_DROP:g} at {lost['n_large']:,} of {lost['n_positions']:,} positions"
    )


def _dropped(run: Run, model: str) -> dict[str, float]:
    """Dropped mass of a model: mean, max, number of positions above `LARGE_DROP` and of all."""
    mass = run.dropped(model)
    return {
        "mean": float(mass.mean()),
        "max": float(mass.max()),
        "n_large": int((mass > LARGE_DROP).sum()),
        "n_positions": len(mass),
    }
