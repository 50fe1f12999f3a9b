"""Parts of `rescoring.py` that score a whole bank: ours beside three ways people do it.

Models are random networks of Qwen3's form with its vocabulary. Ours is the project's own path
(`Worker.score`: bodies, heads, files in a run folder), with models in memory, as the peers have
them; the noise floor is left out. Memory is the peak of resident memory above what was there before
(Linux, /proc/self/clear_refs). Ours reads the teacher's head from the run, where in earnest the
teacher is not in memory; these weights, which the peers hold with their teacher, are not counted.

(a) one rollout at a time, whole-sequence logits of both models, a Python loop over positions, the
    teacher once more for each checkpoint;
(b) batched, log_softmax over batch x vocabulary;
(c) the last hidden states first, then chunks of positions through both heads with eager torch.
"""

from __future__ import annotations

import ctypes
import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from measure import AGREEMENT, TOP_K, VOCABULARY, eager
from timing import Table, interleaved
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from diagnostics.bank.contexts import BankInfo, Rollout, write_bank
from diagnostics.files import sha256_file
from diagnostics.models.files import ModelFiles
from diagnostics.models.heads import head_of
from diagnostics.scoring.hidden import Context, hidden_states, length_buckets
from diagnostics.scoring.pairs import Side, compare
from diagnostics.scoring.reduce import CHUNK, TILE
from diagnostics.scoring.run import START, TEACHER, hidden_file, part_file
from diagnostics.scoring.task import Settings, Task
from diagnostics.scoring.worker import Job, Worker

Numbers = Mapping[str, Tensor]


def network(seed: int, hidden: int, layers: int, vocabulary: int) -> Qwen3ForCausalLM:
    """A random network whose logits have a spread of about 1.5 nats."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        num_key_value_heads=max(1, hidden // 64),
        head_dim=64,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).float().eval()
    torch.nn.init.normal_(model.lm_head.weight, std=1.5 / hidden**0.5)
    return model


def moved(model: Qwen3ForCausalLM, seed: int) -> Qwen3ForCausalLM:
    """The network after some made-up training."""
    other = Qwen3ForCausalLM(model.config).float().eval()
    other.load_state_dict(model.state_dict())
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    return other


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Models in memory and a bank on disk."""

    models: Mapping[str, Qwen3ForCausalLM]
    task: Task
    contexts: Sequence[Context]

    @property
    def positions(self) -> int:
        """Valid positions of the bank."""
        return sum(int(context.valid.sum()) for context in self.contexts)


def setting(
    folder: Path, models: Mapping[str, Qwen3ForCausalLM], *, rollouts: int, length: tuple[int, int]
) -> Setting:
    """A bank of random tokens: `length` of prompts, and of responses on average."""
    rng = np.random.default_rng(0)
    vocabulary = models[TEACHER].config.vocab_size
    rows = []
    for index in range(rollouts):
        prompt = rng.integers(10, 1000, max(2, int(rng.normal(length[0], length[0] / 6)))).tolist()
        response = rng.integers(10, 1000, length[1]).tolist()
        rows.append(
            Rollout(
                prompt_id=f"p{index}",
                sample_index=0,
                prompt_text="",
                response_text="",
                prompt_ids=prompt,
                response_ids=response,
                loss_mask=[True] * length[1],
                sampled_logprob=None,
                teacher_prompt_ids=None,
                token_source="imported",
            )
        )
    info = BankInfo(
        student="random",
        student_fingerprint="0" * 64,
        tokenizer_fingerprint="0" * 64,
        vocabulary=vocabulary,
        sampling={},
        seed=0,
        prompt_source="random",
    )
    bank = write_bank(rows, info, folder / "bank.parquet")
    files = {
        name: ModelFiles(
            spec=name,
            folder=folder,
            config=model.config,
            tokenizer=None,
            fingerprint=name,
            base_fingerprint=name,
            weights=(),
        )
        for name, model in models.items()
    }
    task = Task(
        out=folder / "run",
        bank=bank,
        teacher=files[TEACHER],
        student=files[START],
        checkpoints={},
        origins={},
        vocabulary=vocabulary,
        settings=Settings(top_k=TOP_K, batch_tokens=2048),
    )
    return Setting(models=models, task=task, contexts=task.contexts(0, teacher=False))


# --- the ways people do it ------------------------------------------------------------------------


def one_at_a_time(bank: Setting, names: Sequence[str]) -> dict[str, Numbers]:
    """(a) Each pair by itself: whole logits of both models, then position by position."""
    found = {}
    for name in names:
        rows: list[Numbers] = []
        for context in bank.contexts:
            ids = _ids(context)
            first = len(context.prompt) - 1
            teacher = bank.models[TEACHER](input_ids=ids).logits[0]
            student = bank.models[name](input_ids=ids).logits[0]
            rows += [
                eager(teacher[t : t + 1], student[t : t + 1])
                for t in range(first, first + len(context.response))
            ]
        found[name] = _joined(rows)
    return found


def batched(bank: Setting, names: Sequence[str]) -> dict[str, Numbers]:
    """(b) Batches of rollouts, log_softmax over the whole batch."""
    found = {}
    for name in names:
        rows: dict[int, Numbers] = {}
        for group in length_buckets([c.length for c in bank.contexts], 1024):
            ids, seen = _batch([bank.contexts[i] for i in group])
            teacher = bank.models[TEACHER](input_ids=ids, attention_mask=seen).logits
            student = bank.models[name](input_ids=ids, attention_mask=seen).logits
            width = teacher.shape[1]
            numbers = eager(teacher.flatten(0, 1), student.flatten(0, 1))
            for row, index in enumerate(group):
                context = bank.contexts[index]
                start = row * width + len(context.prompt) - 1
                place = slice(start, start + len(context.response))
                rows[index] = {key: value[place] for key, value in numbers.items()}
        found[name] = _joined([rows[index] for index in range(len(bank.contexts))])
    return found


def chunked_eager(bank: Setting, names: Sequence[str]) -> dict[str, Numbers]:
    """(c) Hidden states of a batch, then 256 positions at a time through both heads."""
    found = {}
    for name in names:
        states = [
            torch.cat(hidden_states(bank.models[model], bank.contexts, 2048))
            for model in (TEACHER, name)
        ]
        heads = [bank.models[model].lm_head for model in (TEACHER, name)]
        found[name] = _joined(
            [
                eager(heads[0](t), heads[1](s))
                for t, s in zip(states[0].split(CHUNK), states[1].split(CHUNK), strict=True)
            ]
        )
    return found


def ours(bank: Setting, names: Sequence[str]) -> dict[str, Numbers]:
    """The project's own path, into run files; the teacher's states are kept where they are."""
    out = bank.task.out
    for name in (TEACHER, *names):
        job = Job(name, bank.task.teacher, "float32")
        if name == TEACHER and job.done(out, 0):
            continue
        Worker(bank.task, job, bank.models[name]).score(0, lambda units: None)
    return {name: _stored(part_file(out, name, 0)) for name in names}


def _stored(path: Path) -> Numbers:
    table = pq.read_table(path, columns=["kl", "reverse_kl", "entropy"])
    return {key: torch.from_numpy(table[key].to_numpy().copy()) for key in table.column_names}


def _ids(context: Context) -> Tensor:
    return torch.from_numpy(np.concatenate([context.prompt, context.response])[None].astype(int))


def _batch(contexts: Sequence[Context]) -> tuple[Tensor, Tensor]:
    width = max(len(c.prompt) + len(c.response) for c in contexts)
    ids = torch.zeros(len(contexts), width, dtype=torch.int64)
    seen = torch.zeros_like(ids)
    for row, context in enumerate(contexts):
        tokens = _ids(context)[0]
        ids[row, : len(tokens)], seen[row, : len(tokens)] = tokens, 1
    return ids, seen


def _joined(rows: Sequence[Numbers]) -> Numbers:
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


def _agree(peers: Mapping[str, Mapping[str, Numbers]]) -> None:
    reference = next(iter(peers.values()))
    for peer, found in peers.items():
        for name, numbers in reference.items():
            for key in ("kl", "reverse_kl", "entropy"):
                apart = (found[name][key] - numbers[key]).abs() / numbers[key].clamp(min=1.0)
                off = float(apart.max())
                assert off <= AGREEMENT, f"{peer}, {name}: {key} is off by {off:.1e}"


# --- the parts ------------------------------------------------------------------------------------


@contextmanager
def toy(quick: bool, checkpoints: int = 1, hidden: int = 128) -> Iterator[Setting]:
    """A teacher twice as wide as the student, both small: everything but the heads is cheap."""
    vocabulary = 8_192 if quick else VOCABULARY
    start = network(2, hidden, 2, vocabulary)
    models = {TEACHER: network(1, 2 * hidden, 4, vocabulary), START: start}
    models |= {f"step{i}": moved(start, 10 + i) for i in range(1, checkpoints + 1)}
    with tempfile.TemporaryDirectory() as folder:
        yield setting(Path(folder), models, rollouts=4 if quick else 10, length=(40, 64))


def whole(quick: bool) -> Iterator[Table]:
    """Teacher, theta_0 and one checkpoint; then one checkpoint more; at two widths."""
    for hidden in (64, 128):
        yield from _whole_at(quick, hidden)


def _whole_at(quick: bool, hidden: int) -> Iterator[Table]:
    rounds = 1 if quick else 3
    with toy(quick, hidden=hidden) as bank:
        out = bank.task.out

        def fresh() -> dict[str, Numbers]:
            for path in out.rglob("*.*"):
                path.unlink()
            return ours(bank, (START, "step1"))

        peers: dict[str, Callable[[], dict[str, Numbers]]] = {
            "(a) one at a time": lambda: one_at_a_time(bank, (START, "step1")),
            "(b) batched": lambda: batched(bank, (START, "step1")),
            "(c) chunked eager": lambda: chunked_eager(bank, (START, "step1")),
            "ours": fresh,
        }
        _agree({name: work() for name, work in peers.items()})
        yield Table(
            title=f"Teacher ({2 * hidden}), theta_0 ({hidden}) and one checkpoint",
            positions=bank.positions,
            of="(a) one at a time",
            seconds=interleaved(peers, rounds),
        )
        peaks = {name: _peak(work) for name, work in peers.items()}
        peaks["ours"] -= _head_size(bank)
        yield Table(
            title="Peak memory of the same, above what was there",
            positions=bank.positions,
            of="(a) one at a time",
            seconds={name: [peak] for name, peak in peaks.items()},
            unit="MB",
        )
        later = {
            "(a) one at a time": lambda: one_at_a_time(bank, ("step1",)),
            "(c) chunked eager": lambda: chunked_eager(bank, ("step1",)),
            "ours, teacher's states kept": lambda: ours(bank, ("step1",)),
        }
        calls = _calls(bank.models[TEACHER])
        ours(bank, ("step1",))
        assert calls == [0], "the teacher's body ran again for a later checkpoint"
        _same_bytes(bank, fresh)
        yield Table(
            title=f"One more checkpoint, widths {2 * hidden} and {hidden}",
            positions=bank.positions,
            of="(a) one at a time",
            seconds=interleaved(later, rounds),
        )


def many(quick: bool) -> Iterator[Table]:
    """What the second and the tenth checkpoint cost."""
    with toy(quick, checkpoints=10) as bank:
        ours(bank, (START, "step1"))
        peers = {name: partial(ours, bank, (name,)) for name in ("step2", "step10")}
        yield Table(
            title="A second and a tenth checkpoint",
            positions=bank.positions,
            of="step2",
            seconds=interleaved(peers, 1 if quick else 3),
        )


def floor(quick: bool) -> Iterator[Table]:
    """A checkpoint of Qwen3-1.7B's width, two layers deep, beside the work that none can avoid.

    With all its 28 layers the body's share, and so the floor, would be larger.
    """
    vocabulary, wide = (8_192, (256, 320)) if quick else (VOCABULARY, (2048, 2560))
    models = {
        TEACHER: network(1, wide[1], 1, vocabulary),
        START: network(2, wide[0], 2, vocabulary),
    }
    with tempfile.TemporaryDirectory() as folder:
        bank = setting(Path(folder), models, rollouts=4, length=(150, 192))
        ours(bank, (START,))
        heads = [head_of(models[name], name) for name in (TEACHER, START)]
        states = [torch.cat(hidden_states(models[name], bank.contexts, 2048)) for name in models]

        def bodies() -> None:
            hidden_states(models[START], bank.contexts, 2048)

        def products() -> None:
            buffer = torch.empty(CHUNK, TILE)
            for t, s in zip(states[0].split(CHUNK), states[1].split(CHUNK), strict=True):
                for first in range(0, vocabulary, TILE):
                    last = min(first + TILE, vocabulary)
                    out = buffer[: len(t), : last - first]
                    torch.mm(t, heads[0].weight[first:last].T, out=out)
                    torch.mm(s, heads[1].weight[first:last].T, out=out)

        def bare() -> None:
            bodies()
            products()

        yield Table(
            title=f"Whole rescoring of one checkpoint at real width, {bank.positions} positions",
            positions=bank.positions,
            of="floor: bare body and both products",
            seconds=interleaved(
                {
                    "floor: bare body and both products": bare,
                    "ours": lambda: ours(bank, (START,)),
                },
                1 if quick else 3,
            ),
        )
        chunk = 2 * CHUNK * TILE * 4 / 1e6
        sides = [Side(states=s, head=h) for s, h in zip(states, heads, strict=True)]
        peaks = {
            "bare forward pass and one chunk": [_peak(bodies) + chunk],
            "ours": [_peak(lambda: ours(bank, (START,))) - _head_size(bank)],
            "heads alone": [_peak(lambda: compare(*sides, vocabulary, TOP_K, "auto"))],
        }
        yield Table(
            title="Peak memory of a pass, above what was there",
            positions=bank.positions,
            of="bare forward pass and one chunk",
            seconds=peaks,
            unit="MB",
        )


def _calls(model: Qwen3ForCausalLM) -> list[int]:
    count = [0]

    def add(*_: object) -> None:
        count[0] += 1

    model.get_decoder().register_forward_pre_hook(add)
    return count


def _same_bytes(bank: Setting, fresh: Callable[[], object]) -> None:
    """A checkpoint scored from the kept states is the one scored with a teacher run afresh."""
    path = part_file(bank.task.out, "step1", 0)
    before = sha256_file(path)
    hidden = sha256_file(hidden_file(bank.task.out, 0))
    fresh()
    assert hidden == sha256_file(hidden_file(bank.task.out, 0))
    assert before == sha256_file(path), "the kept states gave other numbers"


def _peak(work: Callable[[], object]) -> float:
    """Megabytes of resident memory that `work` adds at its peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier work gave back, to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    work()
    return max(0.1, (_status("VmHWM") - before) / 1e3)


def _head_size(bank: Setting) -> float:
    """Megabytes of the teacher's head."""
    return float(bank.models[TEACHER].lm_head.weight.nbytes) / 1e6


def _status(key: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return float(line.split()[1])


PARTS = {"whole": whole, "many": many, "floor": floor}
