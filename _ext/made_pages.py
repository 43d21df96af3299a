"""What the extensions that write parts of pages have in common: how text enters a page, what a page is made from, what a section is called."""

import pathlib

import api_links
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective


def parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """A text in MyST as the nodes that stand in the page instead of the directive."""
    return inside(directive, text, []).children


def inside(directive: SphinxDirective, text: str, classes: list[str]) -> nodes.container:
    """The same in a container, for the style sheet to find."""
    node = nodes.container(classes=classes)
    directive.state.nested_parse(StringList(text.splitlines(), directive.env.docname), directive.content_offset, node)
    return node


def note_book(env: BuildEnvironment, *others: pathlib.Path, root: pathlib.Path | None = None) -> pathlib.Path:
    """The page is written again when a notebook of the book, a program that reads them, or one of `others` has changed. Returns the root of the book, which
    is the folder that is built unless another is named."""
    root = root or pathlib.Path(env.srcdir)
    for read in [*api_links.notebooks(root), *pathlib.Path(__file__).parent.glob("*.py"), *others]:
        env.note_dependency(str(read))
    return root


def heading(node: nodes.Element) -> str:
    """The text of a section's title; empty where it has none, as the inner part of a box, which may be empty altogether."""
    return node[0].astext() if len(node) and isinstance(node[0], nodes.title) else ""
