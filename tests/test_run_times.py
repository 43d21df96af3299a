"""Run times are measured: every chapter has one, and a typed time that is far from it is found."""

import json
import pathlib
import re

import nbformat
import nbformat.v4 as v4
import pytest
import run_times
import time_book
from execute_book import notebooks
from small_book import ROOT, build

CHAPTERS = [path for path in notebooks() if re.match(r"\d\d_", path.name)]
ROLE = re.compile(r"\{run-time\}`([^`]+)`")


def name(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("text", "seconds"), [("45 s", 45), ("2 min", 120), ("1 min 20 s", 80), ("140 s", 140)])
def test_a_typed_time_is_read(text: str, seconds: float) -> None:
    assert run_times.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2 minutes", "45", "1 min 20"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no run time"):
        run_times.seconds_of(text)


@pytest.mark.parametrize(("seconds", "words"), [(1.2, "5 s"), (17.9, "20 s"), (58, "1 min"), (88.1, "1 min 30 s"), (119, "2 min"), (142, "2 min 20 s")])
def test_words_for_a_time_are_read_back_as_nearly_the_same(seconds: float, words: str) -> None:
    assert run_times.in_words(seconds) == words
    assert abs(run_times.seconds_of(words) - seconds) <= max(5 - seconds, 2.5)


@pytest.mark.parametrize(("typed", "far"), [(40, False), (59, False), (61, True), (28, False), (26, True)])
def test_a_factor_of_one_and_a_half_is_far(typed: float, far: bool) -> None:
    assert run_times.far_apart(typed, 40) is far


@pytest.mark.parametrize(("typed", "far"), [(5, False), (10, False), (15, True)])
def test_a_short_time_may_be_off_by_what_it_is_rounded_to(typed: float, far: bool) -> None:
    assert run_times.far_apart(typed, 8) is far


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_the_box_of_a_chapter_states_its_measured_time(path: pathlib.Path) -> None:
    typed = ROLE.findall(nbformat.read(path, as_version=4).cells[0].source)
    assert len(typed) == 1, "the chapter's box has one {run-time}`...`"
    entry = run_times.measured().get(name(path).removesuffix(".ipynb"))
    assert entry, f"not measured yet: make times NB={name(path)}"
    seconds = entry["seconds"]
    assert not run_times.far_apart(run_times.seconds_of(typed[0]), seconds), f"{typed[0]} is typed, {seconds} s were measured"


def test_no_measurement_is_left_of_a_notebook_that_is_gone() -> None:
    assert [page for page in run_times.measured() if not (ROOT / f"{page}.ipynb").exists()] == []


def test_the_readme_states_the_measured_times() -> None:
    rows = re.findall(r"^\| \d\d \| \[.*?\]\((book/\S+)\.ipynb\).*\| ([^|]+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) == len(CHAPTERS)
    wrong = {page: (typed, run_times.measured()[page]["seconds"]) for page, typed in rows if run_times.far_apart(run_times.seconds_of(typed), run_times.measured()[page]["seconds"])}
    assert not wrong


def test_measuring_counts_work_and_not_waiting_and_changes_no_notebook(tmp_path: pathlib.Path) -> None:
    seconds = {}
    for kind, code in {"work": "while time.process_time() - start < 3: pass", "wait": "time.sleep(3)"}.items():
        path = tmp_path / f"{kind}.ipynb"
        nbformat.write(v4.new_notebook(cells=[v4.new_code_cell(f"import time\nstart = time.process_time()\n{code}")]), path)
        before = path.read_bytes()
        seconds[kind] = time_book.measure(path)
        assert path.read_bytes() == before
    assert seconds["work"] - seconds["wait"] > 1.5


def test_a_record_replaces_that_of_the_same_notebook_and_keeps_the_others(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "times.json"
    one, two = ROOT / "book/b/one.ipynb", ROOT / "book/a/two.ipynb"
    for path, seconds in ((one, 10.04), (two, 7.0), (one, 12.34)):
        time_book.record(path, seconds, file)
    record = json.loads(file.read_text(encoding="utf-8"))
    assert [(page, entry["seconds"]) for page, entry in record.items()] == [("book/a/two.ipynb", 7.0), ("book/b/one.ipynb", 12.3)]
    assert all(entry["machine"].endswith("CPU cores") and re.fullmatch(r"\d{4}-\d\d-\d\d", entry["day"]) for entry in record.values())


@pytest.mark.parametrize(("typed", "passes"), [("35 s", True), ("2 min", False)])
def test_the_page_shows_what_was_measured_and_a_wrong_typed_time_stops_the_build(tmp_path: pathlib.Path, typed: str, passes: bool) -> None:
    pages = {"book/intro.md": "# The book\n\nText.\n", "book/ground/00_start_here.md": f"# A page\n\nIt takes {{run-time}}`{typed}`.\n\n```{{run-times}}\n```\n\n```{{page-weights}}\n```\n"}
    (tmp_path / "book").mkdir()
    (tmp_path / "book/run_times.json").write_text('{"book/ground/00_start_here.ipynb": {"seconds": 28.4, "day": "2026-11-27", "machine": "2 CPU cores"}}')
    if passes:
        text = (build(tmp_path, pages) / "book/ground/00_start_here.html").read_text(encoding="utf-8")
        assert '<span class="run-time">30 s</span>' in text and "28 s" in text and "2 CPU cores, 2026-11-27" in text
        assert re.search(r"<tr><td>A page</td><td>0\.0\d MB</td></tr>", text)
    else:
        with pytest.raises(AssertionError, match="the run time 2 min is typed here and 28 s were measured"):
            build(tmp_path, pages)


def test_the_table_says_once_what_all_pages_share():
    times = {page: {"seconds": seconds, "day": "2026-01-02", "machine": "2 CPU cores"} for page, seconds in (("book/ground/00_start_here", 20.2), ("book/unity/18_rosetta", 64.9))}
    assert run_times.table_text(times) == "\n".join([
        "Measured on 2 CPU cores, 2026-01-02.", "", "| page | run time |", "|---|---|",
        "| {doc}`/book/ground/00_start_here` | 20 s |", "| {doc}`/book/unity/18_rosetta` | 65 s |", "| all | 1 min 25 s |",
    ])
    times["book/unity/18_rosetta"]["machine"] = "8 CPU cores"
    table = run_times.table_text(times).splitlines()
    assert table[2:4] == ["| {doc}`/book/ground/00_start_here` | 20 s | 2 CPU cores, 2026-01-02 |", "| {doc}`/book/unity/18_rosetta` | 65 s | 8 CPU cores, 2026-01-02 |"]
    assert {line.count("|") for line in table} == {4}
