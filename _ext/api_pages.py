"""A Sphinx extension: the API pages, written at build time from the docstrings of `diffusion_core`, and the links between them and the chapters.

    ```{api-room} samplers
    ```

lists the public names of `diffusion_core.samplers`: signature, docstring, the chapters that explain and use it, its source. Names go through Sphinx's
Python domain, so that each has the address `#diffusion_core.ddim` and a place in the index and the search. `{api-map}` draws how the rooms stand on
each other. In a chapter's section "In the code" every name of ours leads to its entry; one that no longer exists is a warning, and so an error. So do the
names in the text of the pages beside the chapters.
"""

import functools
import pathlib
import re
from typing import Any

import api_links
import api_names
from api_names import Entry
from api_text import as_myst, fenced
from docutils import nodes
from docutils.parsers.rst import directives
from made_pages import heading, note_book, parsed
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES = {"<dl>": '<span class="sig-lines">', "</dl>": "</span>", "<dd>": '<span class="sig-line">', "</dd>": "</span>"}
PROSE = r"book/(?:package|reading|reference)/[^/]+"  # pages that speak of our names in all of their text; the API pages have their own links
ROOM = re.compile(r"\{api-room\} (\w+)(?:\n:first: (.*))?")


@functools.cache
def rooms_on_pages() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """(page, room, the files and names that come first), in the order of the table of contents: ("book/package/api/samplers", "samplers", ("walks", "grids"))."""
    pages = re.findall(r"file: (book/package/api/\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    texts = {page: (ROOT / f"{page}.md").read_text(encoding="utf-8") for page in pages}
    return tuple((page, room, tuple(first.split())) for page, text in texts.items() for room, first in ROOM.findall(text))


def page_of(room: str) -> str:
    for page, name, _ in rooms_on_pages():
        if name == room:
            return page
    raise ValueError(f"the room diffusion_core.{room} (it has an __all__) is on no page of book/package/api; write {{api-room}} {room} on one of them")


def ordered_entries(room: str) -> tuple[Entry, ...]:
    """The names of a room in the order of its page."""
    return api_names.entries(room, dict((name, first) for _, name, first in rooms_on_pages())[room])


def chapter(number: str) -> str | None:
    path = api_links.chapters(ROOT).get(number)
    return docname(path) if path else None


def docname(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def readers(entry: Entry) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The notebooks that explain the name, and the others that use it, in the order of the book."""
    explain = [path for path in api_links.notebooks(ROOT) if entry.path in api_links.explained(path)]
    return explain, [path for path in api_links.notebooks(ROOT) if entry.path in api_links.used(path) and path not in explain]


def entry_text(entry: Entry) -> str:
    """One entry as MyST: a directive of the Python domain with everything inside."""
    code = fenced("python", api_names.source(entry))
    if entry.is_constant:
        return _directive(8, "py:data", entry.path, f"{code}\n\n{_chapters(entry)}")
    kind = "py:class" if isinstance(entry.value, type) else "py:function"
    parts = [_docstring(entry.value.__doc__ or "", entry), *(_method(entry, method) for method in api_names.methods(entry)), _chapters(entry)]
    parts.append(f"::::{{dropdown}} Source code\n`diffusion_core/{entry.module.replace('.', '/')}.py`\n\n{code}\n::::")
    return _directive(8, kind, entry.path + api_names.signature(entry), "\n\n".join(filter(None, parts)))


def _method(entry: Entry, method: api_names.Method) -> str:
    kind, arguments = ("py:property", "") if method.is_property else ("py:method", method.signature)
    return _directive(6, kind, f"{entry.path}.{method.name}{arguments}", _docstring(method.doc, entry))


def _directive(colons: int, name: str, argument: str, content: str) -> str:
    return f"{':' * colons}{{{name}}} {argument}\n\n{content}\n{':' * colons}"


def _docstring(doc: str, entry: Entry) -> str:
    def known(code: str) -> str | None:
        path = api_links.resolve(code, entry.room)
        return None if path == entry.path or code in api_names.parameters(entry) else path

    return as_myst(doc, api_names.parameters(entry), chapter, known)


def _chapters(entry: Entry) -> str:
    """The line that leads back: `Explained in 08 DDIM. Used in 06, 07.`"""
    explain, use = readers(entry)
    sentences = []
    if explain:
        sentences.append("Explained in " + ", ".join(f"{{doc}}`/{docname(path)}`" for path in explain) + ".")
    if use:
        numbers = [(match[1] if (match := api_links.CHAPTER.fullmatch(path.name)) else "", path) for path in use]
        numbers = [(f"{number} <" if number else "", path) for number, path in numbers]
        sentences.append("Used in " + ", ".join(f"{{doc}}`{start}/{docname(path)}{'>' if start else ''}`" for start, path in numbers) + ".")
    return f":::{{container}} api-chapters\n{' '.join(sentences)}\n:::" if sentences else ""


def room_text(room: str) -> str:
    """A room as MyST: what its own docstring says, then file by file its names, under what the file's docstring says."""
    known = functools.partial(api_links.resolve, room=room)
    parts = [] if room in api_names.by_path() else [f":::{{py:module}} diffusion_core.{room}\n:::"]  # `pretrained` is a function too
    parts.append(":::{py:currentmodule} diffusion_core\n:::")
    parts.append(as_myst(_head(room), chapter=chapter, name=known))
    parts += _types(room)
    home, introduced = room, {room}
    for entry in ordered_entries(room):
        if entry.module != home:
            home = entry.module
            said = "" if home in introduced else f"\n\n{as_myst(api_names.module_of(home).__doc__ or '', chapter=chapter, name=known)}"
            introduced.add(home)
            parts.append(f":::{{container}} api-file\n`{home.replace('.', '/')}.py`{said}\n:::")
        parts.append(entry_text(entry))
    return "\n\n".join(parts)


def _head(room: str) -> str:
    """The docstring of a room, without its name where it begins with that: the heading above says it."""
    doc = api_names.module_of(room).__doc__ or ""
    said = re.sub(rf"^{room.replace('_', ' ')}: ", "", doc, flags=re.IGNORECASE)
    return said[:1].upper() + said[1:]


def _types(room: str) -> list[str]:
    """What the short names of types in the signatures of a room stand for."""
    signatures = " ".join(api_names.signature(entry) for entry in api_names.entries(room))
    found = api_names.type_names(room)
    said = [f"`{name}` is `{meaning}`" for name, meaning in found.items() if re.search(rf"\b{name}\b", signatures)]
    return [f":::{{container}} api-types\nIn the signatures: {'; '.join(said)}.\n:::"] if said else []


class ApiRoom(SphinxDirective):
    """`{api-room} samplers`: the entries of a room. `:first: walks grids` brings those files, or names, forward; no name can be left out."""

    required_arguments = 1
    option_spec = {"first": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        room = self.arguments[0]
        if room not in api_names.rooms():
            raise self.error(f"diffusion_core has no room {room!r} (a module with an __all__); there are {', '.join(api_names.rooms())}")
        note_book(self.env, *api_names.PACKAGE.rglob("*.py"), root=ROOT)
        return parsed(self, room_text(room))


class ApiMap(SphinxDirective):
    """`{api-map}`: the rooms from the ground up, each with what it holds and the rooms whose files it imports."""

    def run(self) -> list[nodes.Node]:
        note_book(self.env, *api_names.PACKAGE.rglob("*.py"), root=ROOT)
        return parsed(self, map_text())


def levels() -> list[list[str]]:
    """The rooms in rows: each row imports from rows before it only. Within a row they stand as in the table of contents."""
    left, rows = [room for _, room, _ in rooms_on_pages()], []
    while left:
        free = [room for room in left if not set(api_names.stands_on(room)) & set(left)]
        if not free:
            raise ValueError(f"rooms of diffusion_core import each other in a circle: {sorted(left)}")
        rows.append(free)
        left = [room for room in left if room not in free]
    return rows


def map_text() -> str:
    rows = [("".join(map(_room_box, row)), i) for i, row in enumerate(levels(), 1)]
    return "\n\n".join(f"::::::{{container}} api-row\nRow {i}\n\n{boxes}::::::" for boxes, i in rows)


def _room_box(room: str) -> str:
    said = re.split(r"(?<=\.) ", " ".join(_head(room).split("\n\n")[0].split()))[0]
    names = ", ".join(f"{{py:obj}}`{entry.name} <diffusion_core.{entry.path}>`" for entry in ordered_entries(room) if not entry.is_constant)
    below = ", ".join(f"{{doc}}`{other} </{page_of(other)}>`" for other in api_names.stands_on(room))
    lines = [f"**{{doc}}`{room} </{page_of(room)}>`**", as_myst(said), names, f"Stands on {below}." if below else ""]
    return f":::::{{container}} api-box\n{chr(10).join(f'{line}{chr(10)}' for line in lines if line)}:::::\n"


def _is_text(literal: nodes.literal) -> bool:
    """No heading, no link, and no part of the page on the literature, which says of each name whose it is."""
    above: nodes.Node | None = literal.parent
    while above is not None:
        if isinstance(above, (nodes.title, nodes.reference)) or "literature" in getattr(above, "attributes", {}).get("classes", ()):
            return False
        above = above.parent
    return True


def _column(literal: nodes.literal) -> bool | None:
    """Whether the code stands in a column of our names; None in running text and in a table without such columns."""
    entry: nodes.Node | None = literal.parent
    while entry is not None and not isinstance(entry, nodes.entry):
        entry = entry.parent
    if entry is None or isinstance(entry.parent.parent, nodes.thead):
        return None
    head = next(iter(entry.parent.parent.parent.findall(nodes.thead)), None)
    columns = api_links.ours([heading.astext() for heading in head[0]]) if head else [True]
    return None if all(columns) else columns[entry.parent.index(entry)]


class LinkNames(SphinxPostTransform):
    """In the section "In the code" of a chapter, and in all of the text of the pages on the package, on other people's code and for reference, inline code
    that is a public name leads to its entry."""

    default_priority = 12

    def run(self, **kwargs: Any) -> None:
        if re.fullmatch(PROSE, self.env.docname):
            self._link_text()
        for section in self.document.findall(nodes.section):
            if heading(section) == api_links.SECTION:
                self._link(section)

    def _link_text(self) -> None:
        literals = [literal for literal in self.document.findall(nodes.literal) if _is_text(literal)]
        for literal, path in zip(literals, api_links.in_page([(literal.astext(), _column(literal)) for literal in literals])):
            if path:
                self._lead(literal, path)

    def _link(self, section: nodes.section) -> None:
        for row in section.findall(nodes.row):
            if isinstance(row.parent, nodes.thead) or len(row) < 2:
                continue
            literals = list(row[1].findall(nodes.literal))
            codes = [literal.astext() for literal in literals]
            for literal, code in zip(literals, codes):
                self._lead(literal, api_links.in_column(code, codes))
            for code in api_links.unknown(codes):
                logger.warning("diffusion_core has no %r, which the section %r names", code, api_links.SECTION, location=row)
        for paragraph in section.findall(nodes.paragraph):
            if not isinstance(paragraph.parent, nodes.entry):
                for literal in list(paragraph.findall(nodes.literal)):
                    self._lead(literal, api_links.resolve(literal.astext()))

    def _lead(self, literal: nodes.literal, path: str | None) -> None:
        target = self.env.get_domain("py").objects.get(f"diffusion_core.{path}")
        if target is None or isinstance(literal.parent, nodes.reference):
            return
        uri = self.app.builder.get_relative_uri(self.env.docname, target.docname)
        reference = nodes.reference("", "", internal=True, refuri=f"{uri}#{target.node_id}", classes=["api-name"])
        literal.replace_self(reference)
        reference += literal


def foreign_types(app: Sphinx, env: Any, node: addnodes.pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """Types of signatures that are not ours, such as Tensor, stay plain text: their documentation is on other machines."""
    if node.get("refdomain") == "py" and node.get("reftype") == "class" and not str(node.get("reftarget")).startswith("diffusion_core."):
        return contnode
    return None


def mend_signatures(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Sphinx writes a signature of several lines as a list of definitions inside of a term, which HTML does not allow: lines are spans."""

    def mended(signature: re.Match[str]) -> str:
        return functools.reduce(lambda html, tag: html.replace(*tag), LINES.items(), signature[0])

    if context.get("body"):
        context["body"] = re.sub(r'<dt class="sig .*?</dt>', mended, context["body"], flags=re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("api-room", ApiRoom)
    app.add_directive("api-map", ApiMap)
    app.add_post_transform(LinkNames)
    app.connect("missing-reference", foreign_types)
    app.connect("html-page-context", mend_signatures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
