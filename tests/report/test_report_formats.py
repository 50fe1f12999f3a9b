"""Files of tables: LaTeX that compiles whatever stands in it, Parquet, Markdown without tags."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from twins import md_rows, tex_rows

from diagnostics.errors import InputError
from diagnostics.paper.tables import PAPER_TABLES, paper_table
from diagnostics.report.chapters import Sheet
from diagnostics.report.contexts.analysis import ReportSettings
from diagnostics.report.contexts.captions import PAPER_COLUMNS, VIEWS
from diagnostics.report.downstream import downstream_sheets
from diagnostics.report.live.views import VIEWS as LIVE
from diagnostics.report.tables.columns import CONTRACT, meaning
from diagnostics.report.tables.formats import FORMATS, check_formats, write_sheet
from diagnostics.report.tables.tex import LONG, latex, tex_text
from diagnostics.report.tables.views import Shown, View
from diagnostics.report.write import write_report
from diagnostics.scoring.run import Run

HOSTILE = 'a_b & 50% #1 $x$ {y} \\input ~^ <b>|</b> "q" `c` 模型 é \x00 \u202e -- λ²'
COLUMNS = (Shown("run", "run", "text"), Shown("gain", "gain", "interval"))
ENGINES = ("pdflatex", "xelatex", "lualatex")
DOCUMENT = r"""\documentclass{article}
\usepackage{array,booktabs,graphicx,longtable,lscape}
\begin{document}
%s
\end{document}
"""


def sheet(rows: int = 3, name: str = "t", run: str = HOSTILE) -> Sheet:
    """A table of a few gains; the first has no interval."""
    gain = np.linspace(-1.5, 1.5, rows)
    frame = pd.DataFrame({"run": [f"{run} {i}" for i in range(rows)], "gain": gain})
    frame["gain_low"], frame["gain_high"] = gain - 1e-5, gain + 1
    frame.loc[0, ["gain_low", "gain_high"]] = np.nan
    return Sheet(name=name, frame=frame, view=View("Table 1: gains", "β_L − β_I of D̃C̃.", COLUMNS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("β_L − β_I, Q3", r"$\beta_L$ $-$ $\beta_I$, Q3"),
        ("D^L = D̃C̃", r"$D^L$ = $\tilde{D} \tilde{C}$"),
        ("H̃_T and H̃×D̃", r"$\tilde{H}_T$ and $\tilde{H} \times \tilde{D}$"),
        ("ΔR² decomposed", r"$\Delta R^2$ decomposed"),
        ("⌈ρN⌉", r"$\lceil \rho N \rceil$"),
        ("KL(teacher ‖ student)", r"KL(teacher $\|$ student)"),
        ("−0.0149 [−1,234, 0.5] †", r"$-0.0149$ [$-1{,}234$, 0.5] $^{\dagger}$"),
        ("−1.20e−05", r"$-1.20\times 10^{-5}$"),
        ("theta_0, kl_0, bc_union", r"$\theta_0$, kl\_0, bc\_union"),
        ("50 % – 3.35%", r"50 \% -- 3.35\%"),
        ("--redo-cuts", "-{}-redo-cuts"),
        ("Qwen3-4B → 1.7B ± 1", r"Qwen3-4B $\to$ 1.7B $\pm$ 1"),
        ("a\\b_{c}^2~", r"a\textbackslash{}b\_\{c\}\textasciicircum{}2\textasciitilde{}"),
        ("Käß 模", r"K\"{a}{\ss} {[}U+6A21{]}"),
    ],
)
def test_symbols_become_math_and_the_rest_is_escaped(text: str, expected: str) -> None:
    assert tex_text(text) == expected


def test_every_letter_of_a_table_is_ascii() -> None:
    for view in (*VIEWS.values(), *LIVE.values()):
        shown = pd.DataFrame({column.heading: [HOSTILE, "−1 †"] for column in view.columns})
        assert latex(shown, view.columns, view, HOSTILE, "x").isascii()


@pytest.mark.parametrize("rows", [1, 3, LONG, LONG + 1, 200])
def test_no_row_is_lost(tmp_path: Path, rows: int) -> None:
    made = sheet(rows)
    write_sheet(tmp_path / "t", made, "paper", FORMATS)
    assert tex_rows((tmp_path / "t.tex").read_text()) == rows
    assert md_rows((tmp_path / "t.md").read_text()) == rows
    assert len(pd.read_csv(tmp_path / "t.csv")) == rows
    assert pq.read_table(tmp_path / "t.parquet").num_rows == rows


def test_parquet_equals_csv_and_says_what_it_holds(tmp_path: Path) -> None:
    made = sheet()
    write_sheet(tmp_path / "t", made, "released", ("csv", "parquet"))
    found = pq.read_table(tmp_path / "t.parquet")
    read = pd.read_csv(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(found.to_pandas(), read, check_dtype=False)
    assert [str(t) for t in found.schema.types] == ["string", *["double"] * 3, "string"]
    said = found.schema.metadata
    assert said[b"definitions"] == b"released"
    assert said[b"title"].decode() == made.view.title
    assert found.schema.field("gain_low").metadata[b"unit"] == b"nats"


def test_markdown_holds_no_tag_and_no_cell_of_two(tmp_path: Path) -> None:
    write_sheet(tmp_path / "t", sheet(1, run="<img src=x>|\n"), "paper", ("md",))
    text = (tmp_path / "t.md").read_text()
    assert "| &lt;img src=x&gt;\\| 0 | −1.500 (no interval) |" in text
    assert "<" not in text


def test_the_papers_table_stands_below_ours_and_beside(tmp_path: Path) -> None:
    made = Sheet(
        name="table09",
        frame=pd.DataFrame({"run": ["x"], "gain": [1.0]}),
        view=View("Table 9: regression", "Caption.", COLUMNS[:1]),
        paper=paper_table(9),
        paper_columns=PAPER_COLUMNS["table09"],
    )
    write_sheet(tmp_path / "table09", made, "paper", FORMATS)
    for suffix, mark in (
        ("md", "### Table 9: regression, the paper's"),
        ("tex", "tab:table09-paper"),
    ):
        ours, theirs = (tmp_path / f"table09.{suffix}").read_text().split(mark)
        assert "0.0860" in theirs
        assert "0.0860" not in ours
    assert pd.read_csv(tmp_path / "paper" / "table09.csv").equals(paper_table(9))
    assert pq.read_table(tmp_path / "paper" / "table09.parquet").to_pandas().equals(paper_table(9))


def test_formats_are_words_with_commas_or_repeated() -> None:
    assert check_formats(None) == ("csv", "md", "tex")
    assert check_formats(["parquet,tex", " csv ", "tex"]) == ("csv", "tex", "parquet")
    with pytest.raises(InputError) as caught:
        check_formats(["csv,pdf"])
    assert str(caught.value) == (
        "--format: expected one of csv, md, tex, parquet, got 'pdf'; choose one of them"
    )
    with pytest.raises(InputError) as caught:
        check_formats([","])
    assert str(caught.value) == (
        "--format: expected one or more of csv, md, tex, parquet, got none; leave the option out "
        "for csv, md and tex"
    )


def test_every_contract_column_has_a_meaning() -> None:
    lacking = [(t, c) for t, names in CONTRACT.items() for c in names if meaning(c, t) is None]
    assert lacking == []
    assert meaning("gap_low_rel", "table09") is not None
    assert meaning("no such column") is None


def compiled(tables: list[Path], folder: Path, engine: str) -> str:
    """The log of a document of tables, compiled twice as longtable asks for."""
    inputs = "\n".join(f"\\input{{{table}}}\\clearpage" for table in tables)
    (folder / "all.tex").write_text(DOCUMENT % inputs)
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    return (folder / "all.log").read_text(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_table_compiles_and_none_is_too_wide(
    small_run: Run, tmp_path: Path, engine: str
) -> None:
    if engine != ENGINES[0] and shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed; {ENGINES[0]} always is (.ci/system-packages)")
    write_report([small_run], tmp_path / "report", ReportSettings(top_k=8, draws=100))
    for made in (sheet(), sheet(60, "long")):
        write_sheet(tmp_path / "report" / "tables" / made.name, made, "paper", ("tex",))
    names = PAPER_TABLES[2:4] + PAPER_TABLES[10:]
    frames = {name: paper_table(name).assign(missing="", seeds=1) for name in names}
    for made in downstream_sheets(frames):
        write_sheet(tmp_path / "report" / "tables" / made.name, made, "", ("tex",))
    tables = sorted((tmp_path / "report" / "tables").glob("*.tex"))
    assert len(tables) >= 18
    log = compiled(tables, tmp_path, engine)
    assert "Overfull" not in log
    assert "too large" not in log
    assert "Missing character" not in log
