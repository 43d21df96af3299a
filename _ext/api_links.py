"""Which public names a notebook speaks of, and what a piece of inline code such as `vlb(...).steps` means: the links between chapters and API pages."""

import ast
import functools
import json
import pathlib
import re
from collections.abc import Collection, Iterator

import api_names
from api_names import Entry

SECTION = "In the code"
FOREIGN = {"odeint", "method", "torch"}  # other people's names in the column of ours: torchdiffeq's solver and its argument, torch's own functions
SPOKEN = {"schedule": "Schedule", "oracle": "oracles.Oracle", "mixture": "GaussianMixture", "denoiser": "Denoiser"}  # variables that stand for a class
CODE = re.compile(r"`([^`]+)`")
NO_TEXT = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$|\{[\w:-]+\}`[^`]*`|\[[^\]]*\]\([^)]*\)|^#[^\n]*$", re.MULTILINE | re.DOTALL)  # blocks, roles, links, headings
TABLE = re.compile(r"^\|([^\n]*)\|[ \t]*\n\|[-:| ]+\|[ \t]*\n((?:\|[^\n]*(?:\n|\Z))+)", re.MULTILINE)
OURS = re.compile(r"\bhere\b|this book|diffusion_core")  # in the heading of a column that has our names
CHAPTER = re.compile(r"(\d\d)_\w+\.ipynb")


@functools.cache
def notebooks(root: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The notebooks that the book's table of contents lists, in its order."""
    listed = re.findall(r"file: (\S+)", (root / "_toc.yml").read_text(encoding="utf-8"))
    return tuple(path for name in listed if (path := root / f"{name}.ipynb").exists())


@functools.cache
def chapters(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """The numbered chapters by number: {"06": .../06_ddpm.ipynb}."""
    return {match[1]: path for path in notebooks(root) if (match := CHAPTER.fullmatch(path.name))}


def resolve(code: str, room: str | None = None) -> str | None:
    """The path of the public name that inline code begins with, `Schedule.posterior` for a method; None for what is none of ours.

    room: where the text stands; its own names come before others, so that `snr` on the page of the losses is `losses.snr`.
    """
    head = re.match(r"(?:diffusion_core\.)?([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?=$|[(\[.* ])", code)
    if not head:
        return None
    paths = api_names.by_path()
    words = head[1].split(".")
    for path in filter(None, [room and f"{room}.{head[1]}", head[1]]):
        if path in paths:
            return path
    if len(words) == 1:
        elsewhere = [entry.path for entry in api_names.all_entries() if entry.name == words[0]]
        told = "_" in words[0] or code.startswith(f"{words[0]}(")  # `score` may be a word, `range_variance` and `edm(sigma_data)` are names
        if words[0] in api_names.rooms() and not code.startswith(f"{words[0]}("):  # nobody calls a room
            return words[0]
        return elsewhere[0] if told and len(elsewhere) == 1 else None
    if words[0] in api_names.rooms():
        shared = [entry.path for entry in api_names.entries(words[0]) if entry.name == words[1]]
        return shared[0] if shared and len(words) == 2 else resolve(".".join([*shared, *words[2:]]), room) if shared else None
    owner = SPOKEN.get(words[0]) or resolve(words[0], room)
    entry = paths.get(owner or "")
    return _member(entry, words[1]) if entry and len(words) == 2 else None


def _member(entry: Entry, name: str) -> str | None:
    """The path of a method: of the class itself or of the public class that it inherits it from; of the class where the name is a field or an attribute."""
    if not isinstance(entry.value, type):
        return None
    ancestors = [base for cls in entry.value.__mro__ for base in api_names.all_entries() if base.value is cls]
    for base in ancestors:
        if any(method.name == name for method in api_names.methods(base)):
            return f"{base.path}.{name}"
    return entry.path if hasattr(entry.value, name) or name in api_names.parameters(entry) else None


def in_column(code: str, cell: Collection[str]) -> str | None:
    """The path of inline code in a chapter's column of our names, where more is understood than in running text: a name that one room alone has,
    `schedule(t)` for a schedule, and a method, `posterior_cov` or `.diffusion2(t)`, of a class that the cell names."""
    if path := resolve(code):
        return path
    word = re.match(r"\.?(\w+)(?![\w=.])", code)
    if not word:
        return None
    if word[1] in SPOKEN and code.startswith(f"{word[1]}("):
        return SPOKEN[word[1]]
    same = [entry.path for entry in api_names.all_entries() if entry.name == word[1]]
    if len(same) == 1 and not code.startswith("."):
        return same[0]
    return next(filter(None, (_member(entry, word[1]) for entry in _named(cell))), None)


def _named(cell: Collection[str]) -> list[Entry]:
    """The public names that the pieces of inline code of a cell belong to, and the public classes that those functions return."""
    names = (_name(resolve(code) or SPOKEN.get(re.split(r"\W", code)[0])) for code in cell)
    entries = [api_names.by_path()[name] for name in names if name]
    returned = " ".join(api_names.signature(entry).rpartition("->")[2] for entry in entries if not isinstance(entry.value, type))
    return entries + [entry for entry in api_names.all_entries() if isinstance(entry.value, type) and re.search(rf"\b{entry.name}\b", returned)]


def unknown(cell: Collection[str]) -> Iterator[str]:
    """The inline code, of all in a cell of that column, which is nothing of ours: no public name, no method of a public class, no argument and no word
    of the docstring of what the cell names."""
    named = _named(cell)
    for code in cell:
        word = re.match(r"\.?(\w+)(\.\w)?", code)
        if word is None or in_column(code, cell) or word[1] in FOREIGN:
            continue
        if not word[2] and any(word[1] in api_names.parameters(entry) or re.search(rf"\b{word[1]}\b", entry.value.__doc__ or "") for entry in named):
            continue
        if word[2] or not any(_member(entry, word[1]) for entry in api_names.all_entries()):
            yield code


def in_text(code: str) -> str | None:
    """The path of inline code on a page outside of the chapters. The bare name of a room is a word there, `denoiser` or `variance`."""
    path = resolve(code)
    return path if path in api_names.by_path() or "." in code else None


def ours(headings: Collection[str]) -> list[bool]:
    """Which columns of a table may have our names: those whose heading says so, or all where none does."""
    said = [bool(OURS.search(heading)) for heading in headings]
    return said if any(said) else [True] * len(said)


def in_page(pieces: Collection[tuple[str, bool | None]]) -> list[str | None]:
    """The path of each piece of inline code on a page: (code, whether it stands in a column of ours; None in running text). A name that another column
    has is other people's name too, and in running text it leads nowhere."""
    theirs = {code for code, column in pieces if column is False}
    return [None if column is False or (column is None and code in theirs) else in_text(code) for code, column in pieces]


def pieces(markdown: str) -> list[tuple[str, bool | None]]:
    """The inline code of a page's Markdown for `in_page`; what stands in a table without a column of ours is running text."""
    text = NO_TEXT.sub("", markdown)
    found: list[tuple[str, bool | None]] = [(code, None) for code in CODE.findall(TABLE.sub("", text))]
    for head, rows in TABLE.findall(text):
        columns = ours(head.split("|"))
        for row in rows.splitlines():
            cells = row.strip().strip("|").split("|")
            found += [(code, None if all(columns) else column) for column, cell in zip(columns, cells) for code in CODE.findall(cell)]
    return found


def code_section(notebook: pathlib.Path) -> str:
    """The Markdown under `## In the code`, up to the next heading of that rank."""
    text = "\n\n".join(source for kind, source in cells(notebook) if kind == "markdown")
    found = re.search(rf"^## {SECTION}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def our_column(notebook: pathlib.Path) -> list[list[str]]:
    """The inline code of each cell of the column `diffusion_core` in the chapter's table of names."""
    rows = [row.strip().strip("|").split("|") for row in code_section(notebook).splitlines() if row.strip().startswith("|")]
    return [CODE.findall(row[1]) for row in rows[2:] if len(row) > 1]


@functools.cache
def cells(notebook: pathlib.Path) -> tuple[tuple[str, str], ...]:
    read = json.loads(notebook.read_text(encoding="utf-8"))
    return tuple((cell["cell_type"], "".join(cell["source"])) for cell in read["cells"])


@functools.cache
def explained(notebook: pathlib.Path) -> frozenset[str]:
    """The paths of the public names, not of their methods, in a chapter's table of names; on another page, in all of its text."""
    if CHAPTER.fullmatch(notebook.name):
        paths = [in_column(code, cell) for cell in our_column(notebook) for code in cell]
    else:
        paths = in_page(pieces("\n\n".join(source for kind, source in cells(notebook) if kind == "markdown")))
    return frozenset(filter(None, map(_name, paths)))


def _name(path: str | None) -> str | None:
    """The public name that a path is or belongs to: `Schedule` for `Schedule.posterior`."""
    while path and path not in api_names.by_path():
        path = path.rpartition(".")[0]
    return path or None


@functools.cache
def used(notebook: pathlib.Path) -> frozenset[str]:
    """The paths of the public names that the notebook's code imports, or reaches through a room that it imports, such as `plots.density_1d`."""
    found: set[str] = set()
    for kind, source in cells(notebook):
        if kind != "code":
            continue
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a magic command
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffusion_core":
                inside = (node.module or "").removeprefix("diffusion_core").strip(".").split(".")[0]
                found |= {path for alias in node.names if (path := resolve(f"{inside}.{alias.name}".strip(".")))}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in api_names.rooms():
                found |= {path for path in [resolve(f"{node.value.id}.{node.attr}")] if path}
    return frozenset(found & set(api_names.by_path()))
