"""What is public is documented, on one page, with an example that runs when it is pasted alone, and linked with the chapters."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
import socket
import time
from collections import Counter

import api_links
import api_names
import api_pages
import matplotlib.pyplot as plt
import pytest
from api_text import CHAPTERS, as_myst

import diffusion_core

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENTRIES = [entry for entry in api_names.all_entries() if not entry.is_constant]
INTERNAL = {"carried", "doors", "extras", "group"}  # modules without names for readers
WIDTH = 84  # columns that the book's page has for the code of a docstring, prompt included
SECONDS = 2.0  # of processor time that an example may take of its own thread: others, if any, mostly wait

NOT_IN_THE_BOOK = {
    **dict.fromkeys(["schedules.Posterior", "oracles.ExactDenoiser", "plots.Element", "plots.Animation", "models.Stage", "models.Classifier"], "what other names return"),
    **dict.fromkeys(["metrics.energy_kernel", "metrics.gaussian_kernel", "metrics.mmd2"], "what the chapters' `metrics.energy_distance` and `permutation_test` are made of"),
    **dict.fromkeys(["progress.watched", "progress.Progress", "training.AdaptiveTimes"], "what `fit` shows and takes"),
    **dict.fromkeys(["shapes.shapes", "shapes.scene", "shapes.draw", "shapes.Scene", "shapes.Thing", "training.drop_labels"], "for the chapters on conditions"),
    **dict.fromkeys(["data.cache_folder", "data.emoji_metadata"], "about files, not about diffusion"),
}


def name(entry: api_names.Entry) -> str:
    return entry.path


def test_every_module_is_a_room_or_known_to_be_internal() -> None:
    modules = {info.name for info in pkgutil.iter_modules(diffusion_core.__path__)}
    assert modules - set(api_names.rooms()) == INTERNAL


def test_every_room_is_on_exactly_one_page() -> None:
    pages = Counter(room for _, room, _ in api_pages.rooms_on_pages())
    assert pages == dict.fromkeys(api_names.rooms(), 1)


def test_every_public_name_is_an_entry_and_no_name_has_two() -> None:
    assert all(count == 1 for count in Counter(entry.path for entry in api_names.all_entries()).values())
    assert all(count == 1 for count in Counter(id(entry.value) for entry in ENTRIES).values())
    top = {name for name in diffusion_core.__all__ if not inspect.ismodule(getattr(diffusion_core, name))}
    assert top <= set(api_names.by_path())
    assert set(diffusion_core.__all__) - top <= set(api_names.rooms())


@pytest.mark.parametrize("entry", api_names.all_entries(), ids=name)
def test_a_path_is_what_a_reader_imports(entry: api_names.Entry) -> None:
    room, _, last = entry.path.rpartition(".")
    assert getattr(importlib.import_module(f"diffusion_core.{room}".rstrip(".")), last) is entry.value


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_a_public_name_has_a_docstring_of_its_own_with_an_example(entry: api_names.Entry) -> None:
    doc = entry.value.__dict__.get("__doc__") if isinstance(entry.value, type) else entry.value.__doc__
    assert doc and doc.strip().splitlines()[0].strip(), "no docstring"
    examples = doctest.DocTestParser().get_examples(doc)
    assert examples, "no example in doctest form"
    assert any(example.want for example in examples), "the example shows nothing"
    assert not doc.lstrip().startswith(">>>"), "the example stands before the description"


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_the_shown_signature_is_what_python_sees(entry: api_names.Entry) -> None:
    text = api_names.signature(entry)
    if not text:
        assert isinstance(entry.value, type)
        return
    shown = ast.parse(f"def f{text}: ...").body[0].args
    names = [arg.arg for arg in [*shown.posonlyargs, *shown.args, *filter(None, [shown.vararg]), *shown.kwonlyargs, *filter(None, [shown.kwarg])]]
    real = inspect.signature(entry.value).parameters
    assert names == list(real)
    if isinstance(entry.value, type):
        return
    assert len(shown.defaults) + sum(default is not None for default in shown.kw_defaults) == sum(p.default is not p.empty for p in real.values())


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_the_shown_source_is_the_code_with_the_head_of_its_docstring(entry: api_names.Entry) -> None:
    def without_docstring(source: str) -> tuple[str, str]:
        node = ast.parse(source).body[0]
        doc = inspect.cleandoc(node.body.pop(0).value.value)
        return ast.dump(node), doc

    (shown, head), (real, doc) = without_docstring(api_names.source(entry)), without_docstring(inspect.getsource(entry.value))
    assert shown == real
    assert head == doc.split("\n\n")[0]


@pytest.mark.parametrize("room", api_names.rooms())
def test_the_code_in_a_docstring_fits_the_page(room: str) -> None:
    """As it is shown: a comment behind a long line stands above it, and the switches of doctest are gone."""
    entries = api_names.entries(room)
    docs = [api_names.module_of(module).__doc__ for module in {room, *(entry.module for entry in entries)}]
    docs += [entry.value.__doc__ for entry in entries if not entry.is_constant]
    docs += [method.doc for entry in entries for method in api_names.methods(entry)]
    code = "\n".join("\n".join(re.findall(r"(?s)~~~~~\{code-block\} \w+\n(.*?)\n~~~~~", as_myst(doc or ""))) for doc in docs)
    shown = [re.sub(r"\s*# doctest: .*", "", line) for line in code.splitlines()]
    assert any(line.startswith(">>> ") for line in shown)
    wide = [line for line in shown if len(line) > WIDTH]
    assert not wide, f"more than {WIDTH} columns: break it over lines, or name what is in between"


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [info.name for info in pkgutil.walk_packages(diffusion_core.__path__, "diffusion_core.") if not info.name.endswith("__main__")]
    return [found for module in modules for found in finder.find(importlib.import_module(module), globs={}) if found.examples]


@pytest.fixture(scope="module")
def warm() -> None:
    """What torch loads at its first derivative is not an example's fault."""
    diffusion_core.LinearVP().rates(0.5)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name.removeprefix("diffusion_core."))
def test_example_runs_alone_fast_and_offline(example: doctest.DocTest, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """In an empty namespace, as pasted; in an empty folder; with no way to another machine."""

    def refuse(*where: object) -> None:
        raise OSError("an example must not need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    example.globs = {"__name__": "__main__"}
    said: list[str] = []
    begun = time.thread_time()
    failed = doctest.DocTestRunner().run(example, out=said.append).failed
    seconds = time.thread_time() - begun
    plt.close("all")
    assert not failed, "".join(said)
    assert seconds < SECONDS, f"{seconds:.1f} s; make the example smaller"


@pytest.mark.parametrize("path", api_links.notebooks(ROOT), ids=lambda path: path.stem)
def test_the_names_in_a_chapters_table_exist(path: pathlib.Path) -> None:
    cells = api_links.our_column(path)
    assert cells or not api_links.CHAPTER.fullmatch(path.name), f"no table under '## {api_links.SECTION}'"
    unknown = [code for cell in cells for code in api_links.unknown(cell)]
    assert not unknown, f"{path.name}, section {api_links.SECTION!r}: diffusion_core has no {', '.join(unknown)}"


@pytest.mark.parametrize("entry", ENTRIES, ids=name)
def test_a_public_name_leads_to_a_chapter_or_a_page(entry: api_names.Entry) -> None:
    docs = (entry.value.__doc__ or "", api_names.module_of(entry.module).__doc__ or "")
    linked = any(api_pages.readers(entry)) or any(re.search(r"[Cc]hapters? \d\d", doc) for doc in docs)
    if linked:
        assert entry.path not in NOT_IN_THE_BOOK, f"the book has {entry.path}: take it out of NOT_IN_THE_BOOK"
    else:
        assert entry.path in NOT_IN_THE_BOOK, f"no notebook has {entry.path}: name its chapter in the docstring, or say why there is none in NOT_IN_THE_BOOK"


@pytest.mark.parametrize("path", sorted((ROOT / "diffusion_core").rglob("*.py")), ids=lambda path: path.relative_to(ROOT / "diffusion_core").as_posix())
def test_a_chapter_that_the_package_names_is_in_the_book(path: pathlib.Path) -> None:
    numbers = {number for run in CHAPTERS.findall(path.read_text(encoding="utf-8")) for number in re.findall(r"\b\d\d\b", run)}
    assert numbers <= set(api_links.chapters(ROOT))


def test_what_is_not_in_the_book_is_public() -> None:
    assert set(NOT_IN_THE_BOOK) <= set(api_names.by_path())
