"""Reading paths: each step exists, comes after what it needs, and has the time that the rates say; what is not so is an error."""

import json
import pathlib
import re

import api_links
import notebook_text
import pytest
import reading_paths
import reading_time
import result_map
import run_times
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "book/reference/paths.md").read_text(encoding="utf-8")
PATHS = dict(re.findall(r"^## (You [^\n]*)\n.*?^```\{reading-path\}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
CHAPTERS = api_links.chapters(ROOT)
STEPS = [(title, step) for title, body in PATHS.items() for step in yaml.safe_load(body)]
NEEDS = {  # read from the boxes by a person
    "00": [],
    "01": [],
    "02": ["01"],
    "04": ["01", "03"],
    "06": ["01", "03"],
    "09": ["01"],
}


def test_the_page_has_the_five_paths() -> None:
    assert list(PATHS) == ["You have one hour", "You have one evening", "You write code", "You want the theory", "You come from physics"]
    assert PAGE.count("**Afterwards you can**") == len(PATHS)


@pytest.mark.parametrize("title", PATHS)
def test_a_path_comes_in_an_order_that_can_be_read(title: str) -> None:
    read: set[str] = set()
    for step in reading_paths.steps(PATHS[title], ROOT):
        assert set(step["trusted"]) == set(result_map.needs(CHAPTERS[step["chapter"]], ROOT)) - read
        read.add(step["chapter"])
        assert step["say"].strip().endswith((".", "?"))


@pytest.mark.parametrize(("title", "step"), STEPS, ids=lambda value: value["chapter"] if isinstance(value, dict) else value)
def test_the_exercise_of_a_step_is_one_of_its_chapter(title: str, step: dict) -> None:
    markdown = notebook_text.markdown(CHAPTERS[step["chapter"]])
    if "exercise" in step:
        assert f":label: {step['exercise']}\n" in markdown
    else:
        assert len(step["only"]) <= 4, f"no exercise for chapter {step['chapter']}, of which {title} reads more than a glance"


def test_the_short_paths_are_as_short_as_they_say() -> None:
    """An hour and an evening hold the reading and one exercise or another."""
    assert sum(step["minutes"] for step in reading_paths.steps(PATHS["You have one hour"], ROOT)) <= 45
    assert sum(step["minutes"] for step in reading_paths.steps(PATHS["You have one evening"], ROOT)) <= 120


def test_the_theorist_reads_every_chapter_of_the_core_but_the_first() -> None:
    assert [step["chapter"] for step in yaml.safe_load(PATHS["You want the theory"])] == [f"{number:02}" for number in range(1, 19)]


@pytest.mark.parametrize("number", CHAPTERS)
def test_a_box_says_what_a_chapter_needs_and_it_comes_earlier(number: str) -> None:
    needs = result_map.needs(CHAPTERS[number], ROOT)
    assert sorted(needs) == sorted(set(needs)) and all(name < number for name in needs)
    if number in NEEDS:
        assert sorted(needs) == NEEDS[number]


@pytest.mark.parametrize(
    ("box", "needs"),
    [
        ("- **You need first** {doc}`01 The toolbox <../ground/01_toolbox>` and {doc}`03 <03_x>`: all. Later {doc}`04 <04_x>` helps.\n- **Run time** 5 s", ["01", "03"]),
        ("**You need**: nothing.\n\nText, {doc}`01 <01_x>`.", []),
    ],
)
def test_only_the_first_sentence_of_a_box_says_what_is_needed(box: str, needs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_text, "markdown", lambda notebook: box)
    assert result_map.needs(CHAPTERS["05"], ROOT) == needs


def test_a_box_that_asks_for_a_later_chapter_or_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_text, "markdown", lambda notebook: "- **You need first** {doc}`17 X <../sde/17_x>`.\n- **Run time** 5 s")
    with pytest.raises(ValueError, match="the box of 05_four_targets.ipynb asks for chapter 17, which comes later"):
        result_map.needs(CHAPTERS["05"], ROOT)
    monkeypatch.setattr(notebook_text, "markdown", lambda notebook: "Nothing.")
    with pytest.raises(ValueError, match="does not say what you need first"):
        result_map.needs(CHAPTERS["05"], ROOT)


def broken(title: str, change: object) -> str:
    steps = yaml.safe_load(PATHS[title])
    change(steps)
    return yaml.safe_dump(steps, allow_unicode=True)


def test_a_section_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="06_ddpm.ipynb has no section Unreal digits"):
        reading_paths.steps(broken("You have one hour", lambda steps: steps[1]["only"].append("Unreal digits")), ROOT)
    with pytest.raises(ValueError, match="has no section Nothing"):
        reading_paths.steps(broken("You write code", lambda steps: steps[2]["without"].append("Nothing")), ROOT)


def test_a_chapter_before_one_that_it_needs_is_an_error() -> None:
    with pytest.raises(ValueError, match="chapter 06 needs 03, which the path reads later"):
        reading_paths.steps("- {chapter: '06', say: Now.}\n- {chapter: '03', say: Then.}", ROOT)
    with pytest.raises(ValueError, match="chapter 03 needs 01, which the path reads later"):
        reading_paths.steps(broken("You want the theory", lambda steps: steps.insert(0, steps.pop(2))), ROOT)


def test_what_is_taken_on_trust_is_what_the_path_has_not_read_and_is_said_once() -> None:
    steps = reading_paths.steps("- {chapter: '03', say: A.}\n- {chapter: '04', say: B.}\n- {chapter: '06', say: C.}", ROOT)
    assert [step["trusted"] for step in steps] == [["01"], ["01"], ["01"]]
    assert reading_paths.path_text("- {chapter: '03', say: A.}\n- {chapter: '04', say: B.}", ROOT).count("On trust") == 1


def test_a_chapter_without_a_measured_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_times, "measured", dict)
    with pytest.raises(ValueError, match="no run time of book/ground/00_start_here"):
        reading_paths.table_text(ROOT)


def test_a_path_says_what_to_read_and_how_long() -> None:
    text = reading_paths.path_text("- {chapter: '02', only: [The bound], say: Look., exercise: ex-02-iwae-rate}", ROOT)
    minutes = reading_paths.in_words(reading_time.minutes(CHAPTERS["02"], ("The bound",)))
    seconds = run_times.in_words(run_times.measured()["book/ground/02_latent_variables"]["seconds"])
    assert text == (
        f"1. **{{doc}}`/book/ground/02_latent_variables`**, {minutes}. Look. *Read*: The bound. *On trust*: {{doc}}`01 </book/ground/01_gaussian_toolbox>`. "
        f"*Do*: {{ref}}`ex-02-iwae-rate`.\n\nTogether about {minutes} of reading. The notebooks run in {seconds}."
    )


def test_the_table_has_each_chapter_once() -> None:
    rows = reading_paths.table_text(ROOT).splitlines()[2:]
    assert [re.search(r"/(\d\d)_", row)[1] for row in rows] == list(CHAPTERS)


def test_the_map_of_chapters_has_each_once_and_its_lines_are_the_boxes() -> None:
    body = re.search(r"```\{chapter-map\}\n(?::[^\n]*\n)*(.*?)```", PAGE, re.DOTALL)[1]
    drawing = result_map.chapter_drawing(body, ROOT)
    drawn = {(net.source.name, target.name) for net in drawing.nets for target in net.targets}
    asked = {(needed, number) for number, notebook in CHAPTERS.items() for needed in result_map.needs(notebook, ROOT)}
    assert drawn <= asked and len(drawn) >= 18
    for start, end in asked:
        assert drawing.boxes[start].row < drawing.boxes[end].row
    with pytest.raises(ValueError, match=r"each chapter: \['02'\]"):
        result_map.chapter_drawing(body.replace('- {chapter: "02"', '- {chapter: "03"', 1), ROOT)


def test_the_minutes_of_a_section() -> None:
    """A role is a word; what a figure's code prints is not read; exercises do not count."""
    text = "# 99 Title\n\nOne two.\n\n## Derivation\n\n" + "word " * 200 + "{prf:ref}`x`, $a$, $b$ and $c$.\n\n$$ a\n= b $$\n\n$$ c $$ (eq-c)\n\n## Exercises\n\n" + "word " * 999
    code = {"cell_type": "code", "source": ["x = 1\n", "y = 2"], "outputs": [{"data": {"image/png": "..."}}, {"text": "3"}]}
    notebook = pathlib.Path("99.ipynb")

    class Written:
        def read_text(self, encoding: str) -> str:
            parts = text.split("## Exercises")
            cells = [{"cell_type": "markdown", "source": [parts[0]]}, code, {"cell_type": "markdown", "source": ["## Exercises" + parts[1]]}]
            return json.dumps({"cells": cells})

        name = notebook.name

    first, derivation, exercises = reading_time.sections(Written())
    assert (first.heading, derivation.heading, exercises.heading) == ("", "Derivation", "Exercises")
    assert derivation.counts == {"words": 202, "displayed": 2, "figures": 1, "inline": 3, "lines of code": 2}
    assert derivation.minutes == pytest.approx(202 / 200 + (3 * 20 + 5 * 2) / 60)
    assert reading_time.minutes(Written()) < 5 < reading_time.minutes(Written(), ("Exercises",)) + 0.1


@pytest.mark.parametrize(("minutes", "words"), [(1, "5 min"), (12.6, "15 min"), (60, "1 h"), (62, "1 h"), (63, "1 h 5 min"), (895, "14 h 55 min")])
def test_minutes_in_words(minutes: float, words: str) -> None:
    assert reading_paths.in_words(minutes) == words
