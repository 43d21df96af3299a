"""A Sphinx extension: pages that are made from the notebooks when the book is built, so that they cannot go out of date.

`{all-checks}`, `{all-exercises}` and `{all-misconceptions}` write their page: a paragraph of totals, then sections. In the chapters each labeled result
gets a link to its row on the page of checks, and the sections "Exercises" and "Misconceptions" one to their page. Links in both directions are
references that Sphinx resolves: one that leads nowhere is a warning, and so an error.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import api_links
import checks_page
import exercises_page
import misconceptions_page
import notebook_results
from docutils import nodes
from made_pages import heading, note_book, parsed
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)
BACK = {"Exercises": ("all-exercises", "All exercises by level"), "Misconceptions": ("all-misconceptions", "All misconceptions of the book")}


class Collected(SphinxDirective):
    """A page made of (heading, text in MyST) pairs. The page is read again when a notebook, or the program that reads them, has changed."""

    totals: Callable[[pathlib.Path], str]
    sections: Callable[[pathlib.Path], list[tuple[str, str]]]

    def run(self) -> list[nodes.Node]:
        root = note_book(self.env)
        target = nodes.target("", "", ids=[self.name], names=[self.name])
        self.state.document.note_explicit_target(target)
        return [target, *parsed(self, type(self).totals(root)), *(self._section(title, text) for title, text in type(self).sections(root))]

    def _section(self, title: str, text: str) -> nodes.section:
        section = nodes.section(names=[nodes.fully_normalize_name(title)])
        self.state.document.note_implicit_target(section, section)
        inline, _ = self.state.inline_text(title, self.lineno)
        section += nodes.title(title, "", *inline)
        section += parsed(self, text)
        return section


class AllChecks(Collected):
    totals, sections = checks_page.totals, checks_page.sections


class AllExercises(Collected):
    totals, sections = exercises_page.totals, exercises_page.sections


class AllMisconceptions(Collected):
    totals, sections = misconceptions_page.totals, misconceptions_page.sections


class NameParts(SphinxTransform):
    """Names for what the pages lead to: `lines-prop-affine` for the first output that checks the result, `misconceptions-08_ddim` for the section."""

    default_priority = 800  # before the domains collect the names of the page

    def apply(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            if "output" in block["classes"]:
                for line in notebook_results.lines_of(block.astext()):
                    for label in notebook_results.LABEL.findall(line):
                        self._name(block, f"lines-{label}")
        for section in self.document.findall(nodes.section):
            if heading(section) in BACK:
                self._name(section, f"{heading(section).lower()}-{self.env.docname.rpartition('/')[2]}")
            elif not section.children:
                label = section.parent.get("label", "without a label")
                logger.warning("the box %s is empty: write what it states, with a blank line between its options and its text", label, location=section.parent)

    def _name(self, node: nodes.Element, name: str) -> None:
        """An explicit name of the page, without the detour over `note_explicit_target`, which would make the node's other names explicit too."""
        if name not in self.document.nameids:
            node["ids"].append(name)
            self.document.ids[name] = node
            self.document.nameids[name] = name
            self.document.nametypes[name] = True


class LinkBack(SphinxPostTransform):
    """On the pages of the notebooks, the small links to the collected pages."""

    default_priority = 5  # before references are resolved
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        path = pathlib.Path(self.env.doc2path(self.env.docname))
        if path.suffix != ".ipynb":
            return
        rows = {result.label for result in notebook_results.results(path)}
        for node in list(self.document.findall(nodes.Element)):
            if rows & set(node["ids"]) and heading(node):
                node[0] += [nodes.Text(" "), self._link(f"row-{node['ids'][0]}", "all checks")]
            elif isinstance(node, nodes.math_block) and node.get("label") in rows:
                node.parent.insert(node.parent.index(node) + 1, nodes.paragraph("", "", self._link(f"row-{node['label']}", "all checks"), classes=["collected-link"]))
            elif isinstance(node, nodes.section) and heading(node) in BACK and api_links.CHAPTER.fullmatch(path.name):
                node.insert(1, nodes.paragraph("", "", self._link(*BACK[heading(node)]), classes=["collected-link"]))

    def _link(self, target: str, text: str) -> addnodes.pending_xref:
        where = {"refdomain": "std", "reftype": "ref", "reftarget": target, "refdoc": self.env.docname}
        return addnodes.pending_xref("", nodes.inline("", text, classes=["std-ref"]), refexplicit=True, refwarn=True, classes=["all-checks"], **where)


def setup(app: Sphinx) -> dict[str, bool]:
    for name, directive in {"all-checks": AllChecks, "all-exercises": AllExercises, "all-misconceptions": AllMisconceptions}.items():
        app.add_directive(name, directive)
    app.add_transform(NameParts)
    app.add_post_transform(LinkBack)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
