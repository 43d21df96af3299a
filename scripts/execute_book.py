"""Run the book's notebooks again in place and normalize them, so that the diff is the change.

Computes on one thread of the CPU (so are all stored outputs), prints the time of each notebook, and leaves a notebook that fails as it was.
Without paths, every notebook under book/ is run.
"""

import argparse
import hashlib
import os
import pathlib
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

BOOK = pathlib.Path(__file__).resolve().parent.parent / "book"
KEPT_CELL_METADATA = ("tags", "mystnb")


def notebooks(book: pathlib.Path = BOOK) -> list[pathlib.Path]:
    """Every notebook under `book`, in reading order (which is the order of the names)."""
    return sorted(path for path in book.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


def chosen(parser: argparse.ArgumentParser, named: list[pathlib.Path]) -> list[pathlib.Path]:
    """The notebooks named on the command line, or all of them; a name that is no file ends the program before anything is run."""
    if absent := [str(path) for path in named if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(absent)}; name it as in book/ground/00_start_here.ipynb, from the root of the repository")
    return named or notebooks()


def cell_ids(sources: list[str]) -> list[str]:
    """An id for each cell made from what it says: inserting a cell changes no other cell's id. Repeated cells are numbered."""
    ids: list[str] = []
    for source in sources:
        digest = hashlib.sha256(source.encode()).hexdigest()[:8]
        repeats = sum(known.split("-")[0] == digest for known in ids)
        ids.append(f"{digest}-{repeats}" if repeats else digest)
    return ids


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighboring outputs to the same stream: where a kernel cuts them depends on the clock."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" == merged[-1].output_type and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def normalize(nb: NotebookNode) -> NotebookNode:
    """Remove what differs between two runs of the same notebook: time stamps, random ids, editor settings, the Python version."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python", "pygments_lexer": "ipython3"},
    )
    for cell, name in zip(nb.cells, cell_ids([cell.source for cell in nb.cells])):
        cell.id = name
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT_CELL_METADATA if key in cell.metadata})
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    return nb


def run(path: pathlib.Path) -> NotebookNode:
    """The notebook as it is after a run in a fresh kernel; the file stays as it is. Raises CellExecutionError when a cell fails."""
    nb = nbformat.read(path, as_version=4)
    client = NotebookClient(
        nb,
        kernel_name="python3",
        timeout=None,
        startup_timeout=300,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": path.parent}},
    )
    client.execute()
    return nb


def execute(path: pathlib.Path) -> None:
    """Run one notebook and write it back, normalized. Raises CellExecutionError and writes nothing when a cell fails."""
    nbformat.write(normalize(run(path)), path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", type=pathlib.Path, nargs="*", help="the notebooks to run (default: all of them)")
    args = parser.parse_args()
    paths = chosen(parser, args.notebooks)
    os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
    os.environ["OMP_NUM_THREADS"] = "1"  # the same digits on any number of cores
    failed = 0
    for path in paths:
        start = time.perf_counter()
        try:
            execute(path)
            print(f"{time.perf_counter() - start:7.1f} s  {path}", flush=True)
        except CellExecutionError as error:
            failed += 1
            print(f" FAILED    {path} (left as it was)\n{error}", file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
