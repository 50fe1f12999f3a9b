"""Definition sets: names, each switch against slow loops over a run's arrays, and who says which.

The truth is made from the stored arrays with plain loops; nothing of it calls the code under test.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import statistics_reference as reference
from hypothesis import given
from hypothesis import strategies as st
from run_on_disk import write_run

from diagnostics.errors import InputError
from diagnostics.files import read_parquet, write_parquet
from diagnostics.scoring.run import Run, open_run, part_file
from diagnostics.statistics.analyses.budgets import selections, top_n
from diagnostics.statistics.analyses.headlines import Shared, headline
from diagnostics.statistics.analyses.noise import unchanged_tokens
from diagnostics.statistics.analyses.redraw import redrawn_interval
from diagnostics.statistics.inference.bootstrap import Bootstrap
from diagnostics.statistics.tables.columns import TOKEN_COLUMNS
from diagnostics.statistics.tables.definitions import (
    PAPER,
    RELEASED,
    SWITCHES,
    Definitions,
    check_definitions,
    definition_set,
    definitions_of,
    require_one_set,
    state,
)
from diagnostics.statistics.tables.normalize import norm, stretched
from diagnostics.statistics.tables.token_files import read_tokens, to_arrow, write_tokens
from diagnostics.statistics.tables.tokens import token_table

K = 4
EXACT = 1e-12  # float64 sums in another order
ANY_SET = st.builds(Definitions, **{name: st.sampled_from(v) for name, v in SWITCHES.items()})
STORED: dict[Path, dict[str, Any]] = {}
SETS = (PAPER, RELEASED, PAPER.leaking(), RELEASED.leaking())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """4 prompts of 2 rollouts of 6 positions; `same` is theta_0 again."""
    folder = tmp_path_factory.mktemp("definitions") / "run"
    return write_run(folder, prompts=4, length=6, checkpoints={"one": 0.3, "same": 0.0})


def in_parts(run: Run, folder: Path, ends: tuple[int, ...]) -> Run:
    """The same run cut into parts of contexts that end before `ends`."""
    manifest = json.loads((run.folder / "manifest.json").read_text()) | {"parts": len(ends)}
    write_parquet(folder / "contexts.parquet", read_parquet(run.folder / "contexts.parquet"))
    owner = run.teacher().context
    for model in ("teacher", "theta_0", *run.checkpoints):
        whole = read_parquet(part_file(run.folder, model, 0))
        for part, (first, end) in enumerate(zip((0, *ends), ends, strict=False)):
            rows = np.flatnonzero((owner >= first) & (owner < end))
            write_parquet(part_file(folder, model, part), whole.take(rows))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_run(folder)


# The slow truth of features at one position, from lists as they are stored.


def stored(run: Run) -> dict[str, Any]:
    """Arrays of the teacher, theta_0 and the checkpoints, read once."""
    if run.folder not in STORED:
        students = {name: run.student(name) for name in ("theta_0", *run.checkpoints)}
        STORED[run.folder] = {"teacher": run.teacher()} | students
    return STORED[run.folder]


def slow_lists(run: Run, model: str, row: int) -> tuple[list[int], list[int], dict[int, float]]:
    """Top-K ids of a student and of the teacher, and the teacher's probability at both."""
    teacher, student = stored(run)["teacher"], stored(run)[model]
    own = [int(v) for v in student.top_ids[row, :K]]
    theirs = [int(v) for v in teacher.top_ids[row, :K]]
    mass = {v: math.exp(student.teacher_logprob[row, i]) for i, v in enumerate(own)}
    mass |= {v: math.exp(teacher.top_logprob[row, i]) for i, v in enumerate(theirs)}
    return own, theirs, mass


def slow_c(run: Run, model: str, lower: bool = False) -> list[float]:
    """C of Eq. 10, or C-hat of Eq. 17, of a student at every position."""
    out = []
    for row in range(len(stored(run)[model].kl)):
        own, theirs, mass = slow_lists(run, model, row)
        out.append(math.fsum(mass[v] for v in own if not lower or v in theirs))
    return out


def slow_union(run: Run) -> list[float]:
    """D of Eq. 9 of theta_0 at every position."""
    start, out = stored(run)["theta_0"], []
    for row in range(len(start.kl)):
        own, theirs, mass = slow_lists(run, "theta_0", row)
        ours = {v: math.exp(start.logprob_at_teacher[row, i]) for i, v in enumerate(theirs)}
        ours |= {v: math.exp(start.top_logprob[row, i]) for i, v in enumerate(own)}
        total_t, total_s = math.fsum(mass.values()), math.fsum(ours.values())
        terms = ((mass[v] / total_t, ours[v] / total_s) for v in mass)
        out.append(math.fsum(p * math.log(p / q) for p, q in terms))
    return out


def slow_norm(values: list[float], epsilon: str) -> list[float]:
    low, high = reference.quantile(values, 0.05), reference.quantile(values, 0.95)
    if high - low < 1e-12:
        return [0.0] * len(values)
    width = high - low + (1e-12 if epsilon == "always" else 0.0)
    return [min(max((z - low) / width, 0.0), 1.0) for z in values]


def slow_table(run: Run, name: str, definitions: Definitions) -> dict[str, list[Any]]:
    """The columns that a set decides, of one checkpoint."""
    h_of, c_of = (
        name if model == "checkpoint" else "theta_0"
        for model in (definitions.entropy_from, definitions.compatibility_from)
    )
    kl_0 = run.student().kl.tolist()
    d = kl_0 if definitions.disagreement == "kl_0" else slow_union(run)
    h, c_hat = run.student(h_of).entropy.tolist(), slow_c(run, c_of, lower=True)
    c = c_hat if definitions.compatibility == "lower" else slow_c(run, c_of)
    d_norm, c_norm, h_norm = (slow_norm(z, definitions.epsilon) for z in (d, c, h))
    cuts = reference.quantile(h, 0.5), reference.quantile(kl_0, 0.5)
    pairs = list(zip(d_norm, c_norm, strict=True))
    return {
        "disagreement": d,
        "compatibility": c,
        "compatibility_lower": c_hat,
        "entropy": h,
        "disagreement_norm": d_norm,
        "compatibility_norm": c_norm,
        "entropy_norm": h_norm,
        "learnable": [a * b for a, b in pairs],
        "incompatible": [a * (1 - b) for a, b in pairs],
        "quadrant": [reference.quadrant(a, b, *cuts) for a, b in zip(h, kl_0, strict=True)],
    }


def alone() -> list[Definitions]:
    """Each switch turned alone, and all of `released`."""
    ours = asdict(PAPER)
    turned = [
        replace(PAPER, **{switch: value})
        for switch, values in SWITCHES.items()
        for value in values
        if value != ours[switch]
    ]
    return [PAPER, *turned, RELEASED, PAPER.leaking(), RELEASED.leaking()]


@pytest.mark.parametrize("definitions", alone(), ids=lambda d: d.name)
def test_columns_under_each_set_equal_slow_loops(run: Run, definitions: Definitions) -> None:
    got = token_table(run, K, ["one"], definitions)
    for name, values in slow_table(run, "one", definitions).items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("definitions", alone(), ids=lambda d: d.name)
def test_a_set_changes_no_other_column(run: Run, definitions: Definitions) -> None:
    ours, theirs = (token_table(run, K, ["one"], d) for d in (PAPER, definitions))
    decided = set(slow_table(run, "one", PAPER)) | {"teacher_entropy_norm"}
    for name in set(ours.columns) - decided:
        assert ours[name].tolist() == theirs[name].tolist(), name
    np.testing.assert_allclose(
        theirs["teacher_entropy_norm"],
        slow_norm(run.teacher().entropy.tolist(), definitions.epsilon),
        rtol=0,
        atol=EXACT,
    )


@pytest.mark.parametrize("name", ["outcome", "keeping", "ties"])
def test_switches_of_analyses_leave_the_table_alone(run: Run, name: str) -> None:
    turned = replace(PAPER, **{name: SWITCHES[name][1]})
    ours, theirs = (token_table(run, K, definitions=d) for d in (PAPER, turned))
    assert ours.to_dict("list") == theirs.to_dict("list")


@pytest.mark.parametrize("base", [PAPER, RELEASED], ids=["paper", "released"])
def test_leakage_of_an_unchanged_checkpoint_is_no_leakage(run: Run, base: Definitions) -> None:
    clean, leaking = (token_table(run, K, ["same"], d) for d in (base, base.leaking()))
    assert clean.to_dict("list") == leaking.to_dict("list")


def test_leakage_norms_are_of_each_checkpoint_alone(run: Run) -> None:
    both = token_table(run, K, ["same", "one"], PAPER.leaking())
    for name in ("same", "one"):
        single = token_table(run, K, [name], PAPER.leaking())
        part = both[both["checkpoint"] == name]
        assert part["learnable"].tolist() == single["learnable"].tolist()


@pytest.mark.parametrize("epsilon", ["always", "empty_range"])
def test_norms_of_the_table_add_epsilon_as_the_set_says(run: Run, epsilon: str) -> None:
    # The quantiles by the loop differ from the table's in the last bits, which eps exceeds here.
    table = token_table(run, K, ["one"], replace(PAPER, epsilon=epsilon))
    other = "always" if epsilon == "empty_range" else "empty_range"
    right, wrong = (slow_norm(table["entropy"].tolist(), e) for e in (epsilon, other))
    inside = (table["entropy_norm"] > 0.3) & (table["entropy_norm"] < 1)
    away = [np.abs(table["entropy_norm"] - np.array(z))[inside].max() for z in (right, wrong)]
    assert away[0] < 1e-14 < 1e-13 < away[1]


def test_epsilon_for_an_empty_range_only_by_hand() -> None:
    # Q05 and Q95 of 0..20 are 1 and 19: the norm of 19 is 18/18, or 18/(18 + 1e-12).
    z = np.arange(21.0)
    assert norm(z, "empty_range")[19] == 1.0
    assert norm(z)[19] == 18 / (18 + 1e-12) < 1.0
    assert stretched(z, "empty_range")[20] == 19 / 18
    for epsilon in ("always", "empty_range"):
        assert norm(np.full(5, 0.3), epsilon).tolist() == [0.0] * 5
        assert norm(0.3 + 1e-14 * z, epsilon).tolist() == [0.0] * 21


# Names.


@pytest.mark.parametrize(
    ("definitions", "name"),
    [
        (PAPER, "paper"),
        (RELEASED, "released"),
        (RELEASED.leaking(), "released+leakage"),
        (PAPER.leaking(), "paper+leakage"),
        (replace(PAPER, disagreement="kl_0"), "paper+disagreement=kl_0"),
        (replace(RELEASED, outcome="gain"), "released+outcome=gain"),
        (replace(RELEASED, entropy_from="checkpoint"), "released+entropy_from=checkpoint"),
    ],
)
def test_a_name_says_how_a_set_departs_from_the_nearer_one(
    definitions: Definitions, name: str
) -> None:
    assert definitions.name == name


@given(ANY_SET)
def test_a_name_read_back_is_the_set(definitions: Definitions) -> None:
    assert definition_set(definitions.name) == definitions
    assert check_definitions(definitions.name) == definitions.name


def test_departures_in_any_order_are_one_set() -> None:
    one = definition_set("paper+compatibility_from=checkpoint+ties=row_order")
    assert one == definition_set("paper+ties=row_order+compatibility_from=checkpoint")
    assert definition_set("paper+entropy_from=checkpoint+compatibility_from=checkpoint") == (
        PAPER.leaking()
    )


def test_released_departs_where_the_definitions_say_so_and_leaks_nothing() -> None:
    ours, theirs = asdict(PAPER), asdict(RELEASED)
    assert {name: value for name, value in theirs.items() if value != ours[name]} == {
        "outcome": "gain_rel",
        "disagreement": "kl_0",
        "epsilon": "empty_range",
        "keeping": "at_least_one",
    }
    assert [d.leaks for d in SETS] == [False, False, True, True]


@pytest.mark.parametrize("name", ["Paper", "", "leakage", "published+leakage"])
def test_an_unknown_set_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        check_definitions(name)
    assert str(caught.value) == (
        f"--definitions: expected `paper` or `released`, got {name.split('+')[0]!r}; "
        "choose one of them"
    )


@pytest.mark.parametrize("word", ["leak", "disagreement=kl", "disagreement", "", "x=kl_0"])
def test_an_unknown_departure_is_refused(word: str) -> None:
    with pytest.raises(InputError) as caught:
        definition_set(f"released+{word}", "t.parquet")
    assert str(caught.value) == (
        "t.parquet: expected after a +: leakage, outcome=gain|gain_rel, "
        "disagreement=union|kl_0, epsilon=always|empty_range, keeping=exact|at_least_one, "
        "ties=hash|row_order, compatibility=exact|lower, entropy_from=theta_0|checkpoint, "
        f"compatibility_from=theta_0|checkpoint, got {word!r}; choose one of them"
    )


# Who says which set.


@pytest.mark.parametrize("definitions", SETS, ids=lambda d: d.name)
def test_what_analyses_do_to_a_table_keeps_its_set(run: Run, definitions: Definitions) -> None:
    table = token_table(run, K, definitions=definitions)
    pieces = [rows for _, rows in table.groupby("checkpoint", observed=True, sort=False)]
    first = pieces[0].reset_index(drop=True)
    frames = [
        *pieces,
        first[first["quadrant"] == 3],
        first.iloc[::-1],
        first.assign(gain=0.0),
        first[["gain", "kl"]],
        first.copy(),
        first.sort_values("gain"),
        pd.concat(pieces),
        unchanged_tokens(first, run),
    ]
    assert {definitions_of(frame) for frame in frames} == {definitions}
    assert require_one_set(frames, "here") == definitions


def test_redrawn_tables_are_normalised_by_their_set(run: Run) -> None:
    table = token_table(run, K, ["one"], replace(PAPER, epsilon="empty_range"))
    seen: list[pd.DataFrame] = []

    def statistic(frame: pd.DataFrame) -> float:
        seen.append(frame)
        return float(frame["gain"].mean())

    redrawn_interval(table, statistic, Bootstrap(draws=3))
    for drawn in seen:
        assert drawn.attrs == table.attrs
        expected = norm(drawn["disagreement"].to_numpy(), "empty_range")
        assert drawn["disagreement_norm"].tolist() == expected.tolist()


def test_tables_of_two_sets_joined_together_state_none(run: Run) -> None:
    mixed = pd.concat([token_table(run, K, definitions=d) for d in (PAPER, RELEASED)])
    with pytest.raises(InputError) as caught:
        definitions_of(mixed)
    assert str(caught.value) == (
        "token table: expected one that says by which definition set it was made, got none "
        "(tables of different sets joined together say none); make it with `token_table` or "
        "`read_tokens`"
    )
    assert definitions_of(mixed, PAPER) == PAPER


def test_tables_of_several_sets_are_refused_by_name(run: Run) -> None:
    tables = [token_table(run, K, definitions=d) for d in (PAPER, RELEASED, PAPER)]
    with pytest.raises(InputError) as caught:
        require_one_set(tables, "figure 2")
    assert str(caught.value) == (
        "figure 2: expected token tables of one definition set, got paper, released; "
        "make all of them with the same --definitions"
    )
    with pytest.raises(InputError, match="of one definition set, got no table; make all of them"):
        require_one_set([], "figure 2")


def test_a_headline_number_of_two_sets_is_refused(run: Run) -> None:
    ours, theirs = (token_table(run, K, ["one"], d) for d in (PAPER, RELEASED))
    with pytest.raises(InputError) as caught:
        headline(theirs, "gap", shared=Shared(ours))
    assert str(caught.value) == (
        "headline number gap: expected token tables of one definition set, got released, paper; "
        "make all of them with the same --definitions"
    )


# What a set's switches do to a budget.


def test_released_keeps_one_position_a_rollout_and_paper_the_exact_number(run: Run) -> None:
    ours, theirs = (token_table(run, K, ["one"], d) for d in (PAPER, RELEASED))
    exact, more = (selections(f, ["kl"], [0.05])["kl", 0.05] for f in (ours, theirs))
    assert exact.mask.sum() == math.ceil(0.05 * 48) == 3
    for _, rows in theirs[more.mask].groupby("context_id", observed=False):
        assert len(rows) >= 1
    # Of each rollout the largest KL_0; beyond those the three largest of all, clipped at Q95.
    kl_0 = theirs["kl_0"].to_numpy().reshape(8, 6)
    best = {(i, int(kl_0[i].argmax())) for i in range(8)}
    top = {divmod(int(i), 6) for i in np.argsort(-kl_0.ravel())[:3]}
    assert {divmod(int(i), 6) for i in np.flatnonzero(more.mask)} == best | top
    assert top_n(theirs, "kl", 0.05).n_kept == len(best | top)


def test_a_plain_sort_keeps_the_first_rows_of_equal_scores(run: Run) -> None:
    # Three of 48 positions lie beyond Q95 and score 1; 3 % keeps two: the first in row order.
    frame = token_table(run, K, ["one"])
    clipped = np.flatnonzero(frame["disagreement_norm"] == 1.0)
    assert len(clipped) == 3
    plain = state(frame.copy(), replace(PAPER, ties="row_order"))
    kept = selections(plain, ["kl"], [0.03])["kl", 0.03].mask
    assert np.flatnonzero(kept).tolist() == clipped[:2].tolist()
    backwards = selections(plain.iloc[::-1], ["kl"], [0.03])["kl", 0.03].mask
    assert np.flatnonzero(backwards[::-1]).tolist() == clipped[1:].tolist()
    for table in (frame, frame.iloc[::-1]):  # under `paper` the two that disagree most
        mask = selections(table, ["kl"], [0.03])["kl", 0.03].mask
        assert set(table["disagreement"][mask]) == set(frame["disagreement"].nlargest(2))


# Files.


@pytest.mark.parametrize("definitions", SETS, ids=lambda d: d.name)
def test_a_file_written_part_by_part_holds_the_table_and_is_read_back_with_its_set(
    run: Run, definitions: Definitions, tmp_path: Path
) -> None:
    parts = in_parts(run, tmp_path / "run", (3, 4, 8))
    file = tmp_path / "tokens.parquet"
    table = token_table(run, K, definitions=definitions)
    assert write_tokens(file, parts, K, definitions) == len(table)
    back = read_tokens(file)
    origin = {"top_k": K, "bank_digest": parts.bank_digest}
    assert back.attrs == table.attrs == {"definitions": definitions.name, **origin}
    assert back.to_dict("list") == table.to_dict("list")
    assert pq.read_schema(file) == to_arrow(table, run, K).schema
    assert pq.read_schema(file).metadata == to_arrow(table, run, K).schema.metadata
    assert pq.ParquetFile(file).num_row_groups == 2 * 3


def test_a_table_that_was_read_back_gives_the_same_numbers(run: Run, tmp_path: Path) -> None:
    write_tokens(tmp_path / "t.parquet", run, K, RELEASED, ["one"])
    read, made = read_tokens(tmp_path / "t.parquet"), token_table(run, K, ["one"], RELEASED)
    ours, theirs = (top_n(f, "teachability", 0.1, Bootstrap(draws=50)) for f in (made, read))
    assert ours == theirs


def spoiled(run: Run, folder: Path) -> Run:
    """A run of two parts whose teacher's entropy is NaN at one position of the second."""
    parts = in_parts(run, folder, (4, 8))
    file = part_file(folder, "teacher", 1)
    table = read_parquet(file)
    entropy = table["entropy"].to_pylist()
    entropy[7] = math.nan
    place = table.column_names.index("entropy")
    write_parquet(file, table.set_column(place, "entropy", [entropy]))
    return parts


def test_nan_in_a_signal_names_its_context_and_leaves_no_file(run: Run, tmp_path: Path) -> None:
    bad, out = spoiled(run, tmp_path / "run"), tmp_path / "out"
    for make in (lambda: token_table(bad, K), lambda: write_tokens(out / "t.parquet", bad, K)):
        with pytest.raises(InputError) as caught:
            make()
        # Position 7 of the part is the second rollout's position 1: context 5 of the bank.
        assert str(caught.value) == (
            "token table, context c005, position 1: expected a finite `teacher_entropy`, got nan; "
            "score that context again, or drop it"
        )
    assert list(out.iterdir()) == []


def rewritten(run: Run, folder: Path, **changes: str | None) -> Path:
    """A token file with other metadata."""
    file = folder / "tokens.parquet"
    write_tokens(file, run, K)
    table = read_parquet(file)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    kept = {key: value for key, value in (metadata | changes).items() if value is not None}
    write_parquet(file, table.replace_schema_metadata(kept))
    return file


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"schema_version": "2"},
            "expected schema version 1 to 1 in the Parquet metadata, got 2; write it with this "
            "project's commands, or update the project",
        ),
        (
            {"definitions": None},
            "expected the definition set in the Parquet metadata, got none; write the table with "
            "`diagnostics tokens`",
        ),
        (
            {"definitions": "printed"},
            "expected `paper` or `released`, got 'printed'; choose one of them",
        ),
    ],
)
def test_a_file_of_another_schema_or_set_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, str | None], complaint: str
) -> None:
    file = rewritten(run, tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_tokens(file)
    assert str(caught.value) == f"{file}: {complaint}"


def test_a_file_without_a_column_is_refused(run: Run, tmp_path: Path) -> None:
    file = rewritten(run, tmp_path)
    write_parquet(file, read_parquet(file).drop_columns(["kl"]))
    left = ", ".join(c.name for c in TOKEN_COLUMNS if c.name != "kl")
    with pytest.raises(InputError) as caught:
        read_tokens(file)
    assert str(caught.value) == (
        f"{file}: expected a column `kl` (double), got columns {left}; "
        "write the file with this project's commands"
    )
