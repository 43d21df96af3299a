"""The recipe of CONTRIBUTING for a new chapter works: its lines are run, in a copy of the book."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from book_rules import CHAPTER_RULES, NOTEBOOK_RULES

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPE = re.search(r"## Add a chapter\n.*?```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The parts of the repository that the recipe touches."""
    copy = tmp_path_factory.mktemp("clone")
    for folder in ("book", "scripts", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.webp"))
    for file in ("_toc.yml", "conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, copy)
    return copy


def as_typed(line: str) -> str:
    """A line of the recipe for this interpreter: `make execute NB=x` is what the Makefile says that it is; a browser is not opened."""
    command = line.split("#")[0].strip().replace("make read", "")
    for target, script in (("execute", "execute_book"), ("times", "time_book")):
        command = command.replace(f"make {target} NB=", f".venv/bin/python scripts/{script}.py ")
    return command.replace(".venv/bin/", f"{pathlib.Path(sys.executable).parent.as_posix()}/")


def test_a_new_chapter_in_ten_lines(copy):
    lines = RECIPE[1].splitlines()
    assert len(lines) <= 10
    chapter = re.search(r"book/\S+\.ipynb", RECIPE[1])[0]
    environment = os.environ | {"PYTEST_ADDOPTS": "-n0 -q", "DIFFUSION_CORE_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
    for line in lines:
        if entry := re.match(r"# add `(.*)` to _toc.yml", line):
            toc = (copy / "_toc.yml").read_text(encoding="utf-8")
            (copy / "_toc.yml").write_text(toc.replace("      - file: book/unity/18_rosetta\n", f"      - file: book/unity/18_rosetta\n      {entry[1]}\n"), encoding="utf-8")
        done = subprocess.run(as_typed(line), shell=True, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert not (copy / "draft.md").exists()
    nb = nbformat.read(copy / chapter, as_version=4)
    assert not [finding for rule in NOTEBOOK_RULES + CHAPTER_RULES for finding in rule(nb)]


def test_the_template_leaves_no_number_open(copy):
    """Every label carries the number, so that a second chapter from the template does not repeat the first one's labels."""
    template = (copy / "scripts/chapter_template.md").read_text(encoding="utf-8")
    labels = re.findall(r":label: (\S+)|\bname: (\S+)", template)
    assert labels and all("-NN-" in label for pair in labels for label in pair if label and label != "python3")
