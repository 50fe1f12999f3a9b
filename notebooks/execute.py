"""Runs notebooks and leaves in them what a reader wants: outputs, and nothing of the machine.

    python notebooks/execute.py                 all of them, in place
    python notebooks/execute.py 01 03           those whose names begin so

Each runs in this folder with one thread. Times, identities and whatever else would differ from run
to run are left out, so that the same versions write the same file.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # of widgets that nobody needs here
}


def notebooks(folder: Path = HERE) -> list[Path]:
    """The notebooks of a folder, in order."""
    return sorted(folder.glob("[0-9]*.ipynb"))


def execute(path: Path, timeout: int = 300) -> NotebookNode:
    """A notebook run from its first cell to its last, as it is kept; the file is left as it was.

    What earlier runs left in `scratch` is removed. Raises nbclient's CellExecutionError at the
    first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    shutil.rmtree(path.parent / "scratch", ignore_errors=True)
    with tempfile.TemporaryDirectory() as own:
        kernel = os.environ | QUIET | {"IPYTHONDIR": own, "JUPYTER_RUNTIME_DIR": own}
        client = NotebookClient(
            notebook,
            timeout=timeout,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
        client.execute(env=kernel)
    return kept(notebook)


def kept(notebook: NotebookNode) -> NotebookNode:
    """A notebook with plain identities and metadata; kernels that differ write the same."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place:02d}"
        cell.metadata = NotebookNode()
    return notebook


def main(starts: list[str]) -> None:
    """Executes the notebooks whose names begin with one of `starts`, or all, in place."""
    for path in notebooks():
        if not starts or path.name.startswith(tuple(starts)):
            print(path.name, flush=True)
            nbformat.write(execute(path), path)


if __name__ == "__main__":
    main(sys.argv[1:])
