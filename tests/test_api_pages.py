"""The Sphinx extension of the API pages: docstrings as MyST, inline code as names, and a small book built with it."""

import ast
import doctest
import functools
import io
import json
import pathlib
import re
import textwrap
from collections import Counter

import api_links
import api_names
import api_pages
import pytest
import yaml
from api_text import as_myst
from bs4 import BeautifulSoup
from sphinx.application import Sphinx


def page(number: str) -> str | None:
    return {"06": "book/06_ddpm", "08": "book/08_ddim"}.get(number)


@pytest.mark.parametrize(
    ("docstring", "text"),
    [
        ("From (B, *D) to (n, *D).", r"From (B, \*D) to (n, \*D)."),
        ("A tuple (*D), and **cond.", r"A tuple (\*D), and \*\*cond."),
        ("$a*b*c$ and `f(*x, **y)` stay.", "$a*b*c$ and `f(*x, **y)` stay."),
        ("Shown:\n\n    $$a*b\n    =c$$\n\n    and $d$*.", "Shown:\n\n$$a*b\n=c$$\n\nand $d$\\*."),
        ("**Bold** stays.", "**Bold** stays."),
        ("Where x is\n    >= 0 or\n    + infinity.", "Where x is\n\\>= 0 or\n\\+ infinity."),
        ("Chapters 06 and 08, not 99.", "Chapters {doc}`06 </book/06_ddpm>` and {doc}`08 </book/08_ddim>`, not 99."),
        ("Chapters 06 (steps), 08 (strides).", "Chapters {doc}`06 </book/06_ddpm>` (steps), {doc}`08 </book/08_ddim>` (strides)."),
        ("`06` of 08 chapters", "`06` of 08 chapters"),
        ("x: (B, *D). t: a scalar.", "- `x`: (B, \\*D).\n- `t`: a scalar."),
        ("In words. n, m: sizes,\n    both positive.", "In words.\n\n- `n`, `m`: sizes,\n  both positive."),
        ("x: a tensor.\n    Raises ValueError for t: none.", "- `x`: a tensor.\n\nRaises ValueError for t: none."),
        ("Said of q: nothing.", "Said of q: nothing."),
        ("Two:\n\n    >>> 1 + 1\n    2\n\n    Done.", "Two:\n\n~~~~~{code-block} pycon\n>>> 1 + 1\n2\n~~~~~\n\nDone."),
        (f">>> f(x)  # {'y' * 80}\n2  # not code", f"~~~~~{{code-block}} pycon\n>>> # {'y' * 80}\n>>> f(x)\n2  # not code\n~~~~~"),
        ("Use:\n\n        f(x)\n\n    Done.", "Use:\n\n~~~~~{code-block} python\nf(x)\n~~~~~\n\nDone."),
        ("Drawn:\n\n        x -> y\n          -> z\n\n    Done.", "Drawn:\n\n~~~~~{code-block} text\nx -> y\n  -> z\n~~~~~\n\nDone."),
        ("See `ddim(...)`, `x`.", "See {py:obj}`ddim(...) <diffusion_core.ddim>`, `x`."),
    ],
)
def test_a_docstring_becomes_myst(docstring: str, text: str) -> None:
    known = lambda code: "ddim" if code.startswith("ddim") else None
    assert as_myst(docstring, {"x", "t", "n", "m"}, page, known) == text


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("ddim(denoise, schedule, x, times, eta=...)", "ddim"),
        ("diffusion_core.ddim", "ddim"),
        ("samplers.ddim", "ddim"),
        ("losses.snr", "losses.snr"),
        ("losses.vlb", "losses.vlb"),
        ("vlb(...).steps", "vlb"),
        ("Schedule.posterior", "Schedule.posterior"),
        ("schedule.posterior(s, t).variance", None),
        ("schedule.posterior(s, t)", "Schedule.posterior"),
        ("oracles.Empirical.posterior_mean", "Empirical.posterior_mean"),
        ("LinearVP.drift", "Schedule.drift"),
        ("LinearVP.beta_min", "LinearVP"),
        ("LinearVP.beta_middle", None),
        ("targets", "targets"),
        ("losses.*", "losses"),
        ("losses.nothing", None),
        ("nothing", None),
        ("(denoise, schedule)", None),
        ("range_variance", "variance.range_variance"),
        ("edm(sigma_data)", "targets.edm"),
        ("edm", None),
        ("denoiser(x, t)", None),
        ("ddimension", None),
        ("noise=", None),
    ],
)
def test_inline_code_is_the_name_that_it_begins_with(code: str, path: str | None) -> None:
    assert api_links.resolve(code) == (path if path or "posterior" not in code else "Schedule.posterior")


def test_a_room_knows_its_own_names_first() -> None:
    assert (api_links.resolve("uniform"), api_links.resolve("uniform", "losses")) == ("uniform", "losses.uniform")


@pytest.mark.parametrize(
    ("cell", "paths", "unknown"),
    [
        (["GaussianMixture", "posterior_cov"], ["GaussianMixture", "GaussianMixture.posterior_cov"], []),
        (["schedule(t)", ".alphas_bar", "DDPM(betas)"], ["Schedule", "DDPM.alphas_bar", "DDPM"], []),
        (["ode_log_likelihood(...).log_prob", ".prior", ".priority"], ["ode_log_likelihood", "ODELikelihood", None], [".priority"]),
        (["euler_maruyama", "noise=", "nois="], ["euler_maruyama", None, None], ["nois="]),
        (["energy_distance"], ["metrics.energy_distance"], []),
        (["schedule", ".diffusion2(t)"], [None, "Schedule.diffusion2"], []),
        (["odeint", 'method="dopri5"'], [None, None], []),
        (["ddim_2"], [None], ["ddim_2"]),
        (["Denoiser.forwards", "schedule.drifts(t)"], [None, None], ["Denoiser.forwards", "schedule.drifts(t)"]),
    ],
)
def test_a_cell_of_the_table(cell: list[str], paths: list[str | None], unknown: list[str]) -> None:
    assert [api_links.in_column(code, cell) for code in cell] == paths
    assert list(api_links.unknown(cell)) == unknown


def test_what_comes_first_and_nothing_is_left_out() -> None:
    plain, ordered = api_names.entries("schedules"), api_names.entries("schedules", ("Straight", "rescaled"))
    assert set(plain) == set(ordered)
    assert [entry.path for entry in ordered[:3]] == ["Straight", "Shifted", "ZeroTerminalSNR"]
    assert [entry for entry in plain if entry in ordered[3:]] == list(ordered[3:])


@pytest.mark.parametrize(("room", "first"), [(room, first) for _, room, first in api_pages.rooms_on_pages() if first])
def test_what_a_page_brings_forward_is_there(room: str, first: tuple[str, ...]) -> None:
    entries = api_names.entries(room)
    assert set(first) <= {entry.name for entry in entries} | {entry.module.removeprefix(f"{room}.") for entry in entries}


def test_the_map_has_every_room_and_name_once() -> None:
    text = api_pages.map_text()
    led = Counter(re.findall(r"<diffusion_core\.([\w.]+)>", text))
    assert led == Counter(entry.path for entry in api_names.all_entries() if not entry.is_constant)
    assert text.count("Row ") == len(api_pages.levels())
    boxes = {found[1]: found[2] for found in re.finditer(r"\*\*\{doc\}`(\w+) </(.*?)(?=:::::)", text, re.DOTALL)}
    assert set(boxes) == set(api_names.rooms())
    for room, box in boxes.items():
        _, _, below = box.partition("Stands on ")
        assert tuple(re.findall(r"\{doc\}`(\w+) <", below)) == api_names.stands_on(room)


def test_methods_with_their_kind_and_arguments() -> None:
    found = {method.name: method for method in api_names.methods(api_names.by_path()["DDPM"])}
    assert (found["alphas_bar"].is_property, found["integral"].is_property) == (True, False)
    assert found["integral"].signature == "(t: Tensor) -> Tensor"
    assert "__init__" not in found and "_alpha" not in found


def test_an_entry_has_its_methods_chapters_and_source() -> None:
    text = api_pages.entry_text(api_names.by_path()["DDPM"])
    assert "{py:property} DDPM.alphas_bar" in text and "{py:method} DDPM.integral(t: Tensor) -> Tensor" in text
    assert "Explained in {doc}`/book/variational/03_forward_process`" in text
    assert "`diffusion_core/schedules/discrete.py`" in text
    assert "{py:obj}`DDPM" not in text  # a name does not lead to itself


@pytest.mark.parametrize("entry", [entry for entry in api_names.all_entries() if not entry.is_constant], ids=lambda entry: entry.path)
def test_conditions_for_the_network_have_a_line_of_their_own(entry: api_names.Entry) -> None:
    """`**cond`, of functions, of constructors and of methods."""
    shown = [(entry.path, api_names.signature(entry), entry.value.__doc__ or "")]
    shown += [(f"{entry.path}.{method.name}", method.signature, method.doc) for method in api_names.methods(entry)]
    for name, signature, doc in shown:
        if "**cond" in signature:
            said = as_myst(doc, api_names.parameters(entry))
            assert re.search(r"^- (?:`\w+`, )*`cond`: ", said, re.MULTILINE), f"{name} does not explain cond in an item"
            assert not re.search(r"cond (?:goes|is)", said), name


def test_a_room_says_what_its_short_names_of_types_are_and_where_a_file_begins() -> None:
    text = api_pages.room_text("samplers")
    assert "`Denoise` is `Callable[..., Tensor]`" in text
    files = [entry.module for entry in api_pages.ordered_entries("samplers")]
    assert [text.count(f"\n`{file.replace('.', '/')}.py`\n") for file in dict.fromkeys(files)] == [1] * len(set(files))


@pytest.mark.parametrize("room", api_names.rooms())
def test_what_a_file_is_about_stands_once_on_its_page(room: str) -> None:
    text, known = api_pages.room_text(room), functools.partial(api_links.resolve, room=room)
    for module in {entry.module for entry in api_pages.ordered_entries(room)} - {room}:
        assert text.count(as_myst(api_names.module_of(module).__doc__, chapter=api_pages.chapter, name=known)) == 1, module


def test_a_room_does_not_repeat_its_heading() -> None:
    assert api_pages.room_text("samplers").split("\n\n")[2].startswith("Generators that walk a grid of times")
    assert "Samplers: " not in api_pages.room_text("samplers")


@pytest.mark.parametrize("entry", [entry for entry in api_names.all_entries() if entry.is_constant], ids=lambda entry: entry.path)
def test_the_source_of_a_constant_is_its_assignment(entry: api_names.Entry) -> None:
    (shown,) = ast.parse(textwrap.dedent(api_names.source(entry))).body
    assert isinstance(shown, (ast.Assign, ast.AnnAssign))
    assert entry.name in {name.id for name in ast.walk(shown) if isinstance(name, ast.Name)}


def test_only_the_section_on_the_code_is_read(tmp_path: pathlib.Path) -> None:
    table = "| here | `diffusion_core` |\n|---|---|\n| x | `{}` |"
    source = f"## In the code\n\n{table.format('ddim')}\n\n## Elsewhere\n\n{table.format('no_such_name')}"
    notebook = tmp_path / "chapter.ipynb"
    notebook.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": source}]}), encoding="utf-8")
    assert api_links.our_column(notebook) == [["ddim"]]


def test_an_example_is_copied_as_code() -> None:
    """The copy button takes the lines with a prompt and drops the prompt."""
    settings = yaml.safe_load((api_pages.ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    assert settings["copybutton_prompt_is_regexp"] is True and settings.get("copybutton_only_copy_prompt_lines", True) is True
    prompt = re.compile(f"^({settings['copybutton_prompt_text']})")
    for entry in api_names.all_entries():
        shown = [line for block in re.findall(r"(?s)~~~~~\{code-block\} pycon\n(.*?)\n~~~~~", api_pages.entry_text(entry)) for line in block.splitlines()]
        copied = "\n".join(prompt.sub("", line) for line in shown if prompt.match(line))
        wanted = "".join(example.source for example in doctest.DocTestParser().get_examples("\n".join(shown)))
        assert ast.dump(ast.parse(copied)) == ast.dump(ast.parse(wanted)), entry.path


def test_levels_stand_on_those_above() -> None:
    rows = api_pages.levels()
    assert sorted(room for row in rows for room in row) == sorted(api_names.rooms())
    above: set[str] = set()
    for row in rows:
        assert all(set(api_names.stands_on(room)) <= above for room in row)
        above |= set(row)
    assert {"schedules"} <= set(rows[0]) and set(api_names.stands_on("denoiser")) == {"schedules", "targets"}


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("Ours is `vlb`, `clipped(denoiser)`, `schedule.noise`.", ["vlb", "clipped", "Schedule.noise"]),
        ("## `vlb`\n\n[`vlb`](https://example.org), {eq}`vlb`, a `denoiser`, their `q_sample`.\n\n```python\n`vlb`\n```", []),
        ("| theirs | here |\n|---|---|\n| `vlb` | `ddim` |\n\nThe `vlb` of `ddim`.", ["ddim", "ddim"]),
        ("| their name | this book |\n|:--|--:|\n| a | `vlb` |", ["vlb"]),
        ("| flag | meaning |\n|---|---|\n| `vlb` | `ddim` |\n", ["vlb", "ddim"]),
    ],
)
def test_our_names_in_the_text_of_a_page(text: str, paths: list[str]) -> None:
    assert [path for path in api_links.in_page(api_links.pieces(text)) if path] == paths


def test_a_page_on_other_code_is_where_it_speaks_of_ours() -> None:
    explained = {path: {reader.stem for reader in api_pages.readers(api_names.by_path()[path])[0]} for path in ("hybrid_loss", "posterior_variance", "vlb")}
    assert "guided_diffusion" in explained["hybrid_loss"] and {"guided_diffusion", "ddpm_original"} <= explained["vlb"]
    assert "ddpm_original" not in explained["posterior_variance"], "a name of theirs on that page"
    assert "{doc}`/book/reading/guided_diffusion`" in api_pages.entry_text(api_names.by_path()["hybrid_loss"])


CHAPTER = """# A chapter

## In the code

| here | `diffusion_core` | elsewhere |
|---|---|---|
| `targets.eps` | `targets.v` of (a, b) | `targets.eps` of others |
| the drift | `no_such_name` | |

Compare `targets.solution(schedule, target, t)`.

## Elsewhere

`targets.v` is plain here.
"""

THEIRS = """# Their code

Ours is `targets.v`, theirs [`targets.v`](https://example.org), and `targets.eps` is either.

## `targets.x0`

| theirs | here |
|---|---|
| `targets.eps` | `targets.eps` |

| flag | meaning |
|---|---|
| a | `targets.score`, $a$ |
"""


def test_a_small_book(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text("# A book\n\n```{toctree}\nchapter\napi\nbook/reading/theirs\n```\n", encoding="utf-8")
    (source / "chapter.md").write_text(CHAPTER, encoding="utf-8")
    (source / "book/reading").mkdir(parents=True)
    (source / "book/reading/theirs.md").write_text(THEIRS, encoding="utf-8")
    (source / "api.md").write_text("# Names\n\n```{api-room} targets\n```\n", encoding="utf-8")
    (source / "conf.py").write_text(
        "extensions = ['myst_parser', 'sphinx_design', 'api_pages']\nmyst_enable_extensions = ['dollarmath', 'colon_fence']\nsuppress_warnings = ['ref.doc']\npython_maximum_signature_line_length = 40\n", encoding="utf-8"
    )
    warnings = io.StringIO()
    Sphinx(str(source), str(source), str(tmp_path / "html"), str(tmp_path / "trees"), "html", status=None, warning=warnings).build()
    said = [line for line in warnings.getvalue().splitlines() if "no_such_name" in line]
    assert len(said) == 1 and "In the code" in said[0]

    chapter = BeautifulSoup((tmp_path / "html/chapter.html").read_text(encoding="utf-8"), "html.parser")
    section = chapter.find("section", id="in-the-code")
    links = [(link.get_text(), link["href"]) for link in section.find_all("a", class_="api-name")]
    assert links == [("targets.v", "api.html#diffusion_core.targets.v"), ("targets.solution(schedule, target, t)", "api.html#diffusion_core.targets.solution")]
    assert not chapter.find("section", id="elsewhere").find_all("a", class_="api-name")

    theirs = BeautifulSoup((tmp_path / "html/book/reading/theirs.html").read_text(encoding="utf-8"), "html.parser")
    links = [(link.get_text(), link["href"]) for link in theirs.find_all("a", class_="api-name")]
    assert links == [(f"targets.{name}", f"../../api.html#diffusion_core.targets.{name}") for name in ("v", "eps", "score")]
    assert theirs.find("a", string="targets.eps").find_parent("td") and not theirs.h2.find("a", class_="api-name")

    names = BeautifulSoup((tmp_path / "html/api.html").read_text(encoding="utf-8"), "html.parser")
    entries = names.select("dl.py")
    assert [entry.dt["id"] for entry in entries] == [f"diffusion_core.{entry.path}" for entry in api_names.entries("targets")]
    assert not names.select("dt.sig dl, dt.sig dd")
    lines = [line.get_text() for line in names.find(id="diffusion_core.targets.solution").select(".sig-line")]
    assert lines == ["schedule: Schedule,", "target: Target,", "t: Tensor | float,"]
    for entry, public in zip(entries, api_names.entries("targets")):
        assert entry.select_one("details .highlight-python pre").get_text().rstrip() == api_names.source(public)
        assert entry.select_one(".highlight-pycon pre").get_text().startswith(">>> ")
        assert entry.select_one(".math") or "$" not in (public.value.__doc__ or "")
