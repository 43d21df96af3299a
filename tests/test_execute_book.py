"""Running a notebook again leaves no trace of when and where it was run, and a failing run leaves the file alone."""

import pathlib

import execute_book
import nbformat
import nbformat.v4 as v4
import pytest


def test_cell_ids_follow_the_content() -> None:
    before = execute_book.cell_ids(["a", "b", "a", "a"])
    after = execute_book.cell_ids(["a", "new", "b", "a", "a"])
    assert before == [after[0], after[2], after[3], after[4]]
    assert len(set(before)) == 4


def test_streams_are_joined_and_kinds_kept_apart() -> None:
    pieces = [("stdout", "a"), ("stdout", "b"), ("stderr", "c"), ("stdout", "d")]
    merged = execute_book.merge_streams([v4.new_output("stream", name=name, text=text) for name, text in pieces])
    assert [(out.name, out.text) for out in merged] == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]


def test_running_twice_gives_the_same_bytes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.ipynb"
    cell = v4.new_code_cell("import os\nprint(os.environ['DIFFUSION_CORE_DEVICE'])")
    cell.metadata.update(tags=["nbval-check-output"], execution={"iopub.status.busy": "2026-01-01T00:00:00"})
    nbformat.write(v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.7"}}), path)
    execute_book.execute(path)
    first = path.read_bytes()
    execute_book.execute(path)
    assert path.read_bytes() == first
    assert b"version" not in first and b"iopub" not in first
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "cpu\n"


def test_a_failing_notebook_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.ipynb"
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(execute_book.CellExecutionError, match="ZeroDivisionError"):
        execute_book.execute(path)
    assert path.read_bytes() == before
