"""Sampling: seeded, plain, and with the log-probability of the student's own distribution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from doubles import (
    ASSISTANT,
    CHAT_TEMPLATE,
    END,
    PAD,
    USER,
    copy,
    slow_logprobs,
    slow_model,
    word_tokenizer,
)

from diagnostics.bank.build import build_bank
from diagnostics.bank.contexts import read_bank
from diagnostics.bank.prompts import Prompt
from diagnostics.bank.sample import (
    Samples,
    Sampling,
    encode_prompt,
    sample_batch,
    sample_rollouts,
)
from diagnostics.errors import InputError
from diagnostics.models.files import open_model
from diagnostics.models.weights import load_weights

# float32 logits of a one-layer net against float64: a few units in the seventh digit
LOGPROB_TOLERANCE = 2e-5
PROMPTS = [[6, 7, 8, 9, 10, 11], [12], [13, 14, 15], [6, 7, 8, 9, 10, 11]]


@pytest.fixture(scope="module")
def loaded(student: str) -> torch.nn.Module:
    return load_weights(open_model(student), "float32", "cpu")


@pytest.fixture(scope="module")
def exact(student: str) -> torch.nn.Module:
    return slow_model(student)


def draw(model: torch.nn.Module, prompts: Sequence[Sequence[int]] = PROMPTS, **changes) -> Samples:
    options = {"max_new_tokens": 12, "temperature": 1.0, "seed": 0, "end": END, "pad": PAD}
    return sample_batch(model, prompts, **(options | changes))


def prompt(text: str, **changes) -> Prompt:
    return Prompt(**({"prompt_id": text, "text": text, "teacher": None} | changes))


def frequent_token(samples: Samples) -> int:
    """The token drawn most often after the first place: a good stand-in for an end token."""
    return int(samples.response_ids[:, 1:].flatten().bincount().argmax())


def test_same_seed_same_rollouts(loaded: torch.nn.Module) -> None:
    one, two, other = draw(loaded), draw(loaded), draw(loaded, seed=1)
    assert torch.equal(one.response_ids, two.response_ids)
    assert torch.equal(one.logprob, two.logprob)
    assert not torch.equal(one.response_ids, other.response_ids)


def test_sampling_leaves_the_global_generator_alone(loaded: torch.nn.Module) -> None:
    before = torch.get_rng_state()
    draw(loaded)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_logprob_is_the_untempered_one_of_the_drawn_token(
    loaded: torch.nn.Module, exact: torch.nn.Module, temperature: float
) -> None:
    samples = draw(loaded, temperature=temperature)
    for row, ids in enumerate(PROMPTS):
        length = int(samples.valid[row].sum())
        response = samples.response_ids[row, :length].tolist()
        truth = slow_logprobs(exact, ids, response)
        for t, token in enumerate(response):
            assert samples.logprob[row, t].item() == pytest.approx(
                truth[t, token].item(), abs=LOGPROB_TOLERANCE
            )


def test_left_padding_does_not_change_log_probabilities(
    loaded: torch.nn.Module, exact: torch.nn.Module
) -> None:
    short = [12]
    padded = draw(loaded, [list(range(6, 40)), short])
    response = padded.response_ids[1, : int(padded.valid[1].sum())].tolist()
    truth = slow_logprobs(exact, short, response)
    found = padded.logprob[1, : len(response)].double()
    assert torch.allclose(
        found, truth[range(len(response)), response], rtol=0, atol=LOGPROB_TOLERANCE
    )


def test_rows_of_one_prompt_are_drawn_apart(loaded: torch.nn.Module) -> None:
    samples = draw(loaded)
    assert not torch.equal(samples.response_ids[0], samples.response_ids[3])


def test_frequencies_follow_the_students_probabilities(
    loaded: torch.nn.Module, exact: torch.nn.Module
) -> None:
    count = 4000
    samples = draw(loaded, [[6, 7]] * count, max_new_tokens=1, end=None)
    shares = samples.response_ids[:, 0].bincount(minlength=64).double() / count
    probability = slow_logprobs(exact, [6, 7], [0])[0].exp()
    # 4.5 standard errors of a share, at the largest of 64 tokens: chance of a miss below 1e-3
    error = (probability * (1 - probability) / count).sqrt()
    assert ((shares - probability).abs() <= 4.5 * error + 1 / count).all()


def test_valid_mask_ends_with_the_first_end_token(loaded: torch.nn.Module) -> None:
    end = frequent_token(draw(loaded, end=None))
    samples = draw(loaded, [[6, 7]] * 40, end=end)
    lengths = set()
    for row in range(40):
        drawn = samples.response_ids[row].tolist()
        stop = drawn.index(end) + 1 if end in drawn else len(drawn)
        assert samples.valid[row].tolist() == [True] * stop + [False] * (len(drawn) - stop)
        lengths.add(stop)
    assert len(lengths) > 2  # some ended early, at different places


def test_end_token_that_pads_counts_once(loaded: torch.nn.Module) -> None:
    end = frequent_token(draw(loaded, end=None))
    samples = draw(loaded, [[6, 7]] * 40, end=end, pad=end)
    valid_ends = ((samples.response_ids == end) & samples.valid).sum(dim=1)
    assert valid_ends.max() == 1
    assert (samples.valid.sum(dim=1) < samples.valid.shape[1]).any()


def test_without_an_end_token_every_position_is_valid(loaded: torch.nn.Module) -> None:
    samples = draw(loaded, [[6, 7]] * 300, end=None, pad=PAD, max_new_tokens=5)
    assert samples.valid.shape == (300, 5)
    assert samples.valid.all()
    early = (samples.response_ids[:, :-1] == END).any(dim=1)
    assert early.any()  # the configuration's end token was drawn, and the row went on
    assert (samples.response_ids[early] != PAD).all(dim=1).any()


def test_settings_that_come_with_a_model_do_not_touch_sampling(
    student: str, exact: torch.nn.Module, loaded: torch.nn.Module, tmp_path: Path
) -> None:
    """Published models bring a generation_config.json; sampling is plain all the same."""
    folder = copy(student, tmp_path / "student")
    (folder / "generation_config.json").write_text(
        json.dumps(
            {
                "do_sample": True,
                "repetition_penalty": 1.8,
                "temperature": 0.3,
                "top_k": 2,
                "top_p": 0.5,
                "min_p": 0.2,
                "typical_p": 0.9,
                "no_repeat_ngram_size": 2,
                "suppress_tokens": [20, 21],
                "min_new_tokens": 3,
                "eos_token_id": [END, 30],
                "pad_token_id": PAD,
            }
        )
    )
    dressed = load_weights(open_model(str(folder)), "float32", "cpu")
    assert dressed.generation_config.repetition_penalty == 1.8
    samples, plain = draw(dressed), draw(loaded)
    assert torch.equal(samples.response_ids, plain.response_ids)
    truth = slow_logprobs(exact, PROMPTS[0], samples.response_ids[0].tolist())
    for t, token in enumerate(samples.response_ids[0].tolist()):
        assert samples.logprob[0, t].item() == pytest.approx(
            truth[t, token].item(), abs=LOGPROB_TOLERANCE
        )


def test_text_is_encoded_as_it_is() -> None:
    assert encode_prompt("w0 w3 nonsense", word_tokenizer()) == [6, 9, 2]


def test_messages_go_through_the_chat_template() -> None:
    ids = encode_prompt([{"role": "user", "content": "w0 w3"}], word_tokenizer())
    assert ids == [USER, 6, 9, ASSISTANT]


def test_messages_without_a_chat_template_are_refused() -> None:
    tokenizer = word_tokenizer(chat_template=None)
    with pytest.raises(InputError, match="expected a tokenizer with a chat template"):
        encode_prompt([{"role": "user", "content": "w0"}], tokenizer)


def test_messages_that_the_template_refuses_are_a_user_error() -> None:
    strict = "{{ raise_exception('roles must alternate') }}" + CHAT_TEMPLATE
    with pytest.raises(InputError, match="roles must alternate"):
        encode_prompt([{"role": "user", "content": "w0"}], word_tokenizer(chat_template=strict))


def test_rollouts_stand_in_prompt_and_sample_order(loaded: torch.nn.Module) -> None:
    prompts = [prompt("w1 w2"), prompt("w3"), prompt("w4 w5 w6")]
    sampling = Sampling(samples_per_prompt=2, max_new_tokens=4, batch=4)
    done: list[int] = []
    rollouts = sample_rollouts(loaded, word_tokenizer(), prompts, sampling, done.append)
    assert [(r.prompt_id, r.sample_index) for r in rollouts] == [
        (p.prompt_id, index) for p in prompts for index in (0, 1)
    ]
    assert done == [4, 2]
    assert [r.prompt_ids for r in rollouts[::2]] == [[7, 8], [9], [10, 11, 12]]
    assert {r.token_source for r in rollouts} == {"generated"}
    assert all(r.loss_mask == [True] * len(r.response_ids) for r in rollouts)
    assert all(len(r.sampled_logprob) == len(r.response_ids) for r in rollouts)
    assert rollouts[0].prompt_text == "w1 w2"


def test_batches_draw_from_seeds_of_their_own(loaded: torch.nn.Module) -> None:
    prompts = [prompt("w1"), prompt("w1", prompt_id="again")]
    one_by_one = Sampling(max_new_tokens=12, batch=1)
    first, second = sample_rollouts(loaded, word_tokenizer(), prompts, one_by_one)
    assert first.response_ids != second.response_ids


def test_teacher_prompt_is_encoded_beside_the_students(loaded: torch.nn.Module) -> None:
    prompts = [prompt("w1", teacher="w1 w2"), prompt("w3")]
    rollouts = sample_rollouts(loaded, word_tokenizer(), prompts, Sampling(max_new_tokens=2))
    assert [r.teacher_prompt_ids for r in rollouts] == [[7, 8], None]
    assert rollouts[0].prompt_ids == [7]


def prompt_file(folder: Path, texts: Sequence[str]) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    return str(path)


def test_built_bank_reads_back_and_says_where_it_came_from(student: str, tmp_path: Path) -> None:
    source = prompt_file(tmp_path, ["w1 w2", "w3"])
    sampling = Sampling(samples_per_prompt=3, max_new_tokens=5, seed=7)
    built = build_bank(student, source, tmp_path / "bank.parquet", sampling)
    found = read_bank(tmp_path / "bank.parquet")
    assert found.digest == built.digest
    assert len(found) == 6
    info = found.info
    assert (info.student, info.seed, info.prompt_source) == (student, 7, source)
    assert info.vocabulary == 64
    assert info.student_fingerprint == open_model(student).fingerprint
    assert info.sampling["max_new_tokens"] == 5
    assert max(len(ids) for ids in found.ids("response_ids")) <= 5


def test_building_twice_gives_the_same_digest(student: str, tmp_path: Path) -> None:
    source = prompt_file(tmp_path, ["w1 w2", "w3"])
    digests = {
        build_bank(student, source, tmp_path / name, Sampling(max_new_tokens=5, seed=seed)).digest
        for name, seed in (("a.parquet", 0), ("b.parquet", 0), ("c.parquet", 1))
    }
    assert len(digests) == 2


def test_a_prompt_given_twice_is_two_rollouts_of_one_prompt(student: str, tmp_path: Path) -> None:
    """With one token a response, two rollouts of one prompt are often the same."""
    source = prompt_file(tmp_path, ["w1"] * 80)
    bank = build_bank(student, source, tmp_path / "b.parquet", Sampling(max_new_tokens=1))
    assert len(set(bank.strings("prompt_id"))) == 1
    assert sorted(bank.table["sample_index"].to_pylist()) == list(range(80))


@pytest.mark.parametrize("field", ["text", "teacher"])
@pytest.mark.parametrize("others", [["w1"], []])
def test_prompt_without_tokens_is_refused_before_sampling(
    loaded: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, others: list[str], field: str
) -> None:
    tokenizer = word_tokenizer()
    assert encode_prompt(" ", tokenizer) == []
    monkeypatch.setattr(
        "diagnostics.bank.sample.sample_batch", lambda *a, **k: pytest.fail("sampled")
    )
    dumb = Prompt(**({"prompt_id": "dumb", "text": "w2", "teacher": None} | {field: " "}))
    prompts = [*(prompt(text) for text in others), dumb]
    with pytest.raises(InputError, match="dumb"):
        sample_rollouts(loaded, tokenizer, prompts, Sampling())
