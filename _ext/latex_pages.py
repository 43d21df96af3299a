"""A Sphinx extension: what the book is on paper. It acts when the builder writes LaTeX and leaves the web pages alone.

Theorems, exercises and solutions get boxes of their own, nothing is folded, and letters that the text's font lacks are set in one that has them. The
pictures are in `latex_pictures.py`, the macros in `latex_pages.tex`, the commands in `scripts/build_pdf.py`.
"""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import sphinx_exercise.nodes as exercises
import sphinx_proof.nodes as results
from docutils import nodes
from latex_pictures import PrintDrawings, PrintMotion
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.latex import LaTeXTranslator
from sphinx_exercise.utils import get_node_number as exercise_number

HERE = pathlib.Path(__file__).resolve().parent
TARGET = "diffusion-from-first-principles"
HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318f\uac00-\ud7a3]+(?: +[\u1100-\u11ff\u3131-\u318f\uac00-\ud7a3]+)*")
LONG_TABLE = 30  # rows, from which Sphinx lets a table go over several pages
BREAKS = re.compile(r"[_.,(/=](?=\w)")
BOXES = {"definition": "bookdefinition", "assumption": "bookdefinition", "axiom": "bookdefinition"}


class Unfold(SphinxPostTransform):
    """On paper nothing folds: a hidden output is printed. The source code of the package stays out; its file is named beside each entry."""

    default_priority = 150
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for cell in self.document.findall(nodes.container):
            if "tag_hide-output" in cell["classes"]:
                cell["classes"].remove("tag_hide-output")
        for fold in list(self.document.findall(nodes.container)):
            if fold.get("design_component") != "dropdown":
                continue
            title = next((child for child in fold.children if isinstance(child, nodes.rubric)), None)
            if title is not None and title.astext() == "Source code":
                fold.replace_self([child for child in fold.children if isinstance(child, nodes.paragraph)])


class SetHangul(SphinxPostTransform):
    """Korean words get the role `hangul`, which the macros set in a Korean font."""

    default_priority = 900
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for text in list(self.document.findall(nodes.Text)):
            said = text.astext()
            if not HANGUL.search(said) or isinstance(text.parent, (nodes.raw, nodes.literal_block, nodes.math, nodes.math_block)):
                continue
            parts: list[nodes.Node] = []
            end = 0
            for match in HANGUL.finditer(said):
                parts += [nodes.Text(said[end : match.start()]), nodes.inline("", match[0], classes=["hangul"])]
                end = match.end()
            text.parent.replace(text, [part for part in [*parts, nodes.Text(said[end:])] if part.astext()])


class BreakCode(SphinxPostTransform):
    """In a table a name of code may break after its punctuation: a zero-width space says where, and the macros make it a place to break."""

    default_priority = 900
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for literal in self.document.findall(nodes.literal):
            if any(isinstance(up, nodes.entry) for up in ancestors(literal)):
                for text in list(literal.findall(nodes.Text)):
                    text.parent.replace(text, nodes.Text(BREAKS.sub("\\g<0>\u200b", text.astext())))


class WrapLongTables(SphinxPostTransform):
    """A table of more than a page has columns of fixed widths, by what stands in them: Sphinx sets its cells without breaking their lines otherwise."""

    default_priority = 900
    formats = ("latex",)

    def run(self, **kwargs: Any) -> None:
        for table in self.document.findall(nodes.table):
            rows = list(table.findall(nodes.row))
            columns = list(table.findall(nodes.colspec))
            if len(rows) > LONG_TABLE and all(len(row) == len(columns) for row in rows):
                table["classes"] = [name for name in table["classes"] if name != "colwidths-auto"] + ["colwidths-given"]
                for i, column in enumerate(columns):
                    column["colwidth"] = max(8, min(60, sum(len(row[i].astext()) for row in rows) // len(rows)))


def ancestors(node: nodes.Node) -> Iterator[nodes.Element]:
    while node.parent is not None:
        node = node.parent
        yield node


def visit_box(self: LaTeXTranslator, node: nodes.Element) -> None:
    """A result, an exercise or a solution: an anchor, and a box whose title is the node's first child or, for a result, its kind and number."""
    kind = type(node).__name__.removesuffix("_node")
    page = results.find_parent(self.builder.env, node, "section")
    labels = [f"{page}:{node['label']}"]
    if isinstance(node, (exercises.exercise_node, exercises.exercise_enumerable_node)):
        box = "bookexercise"
        labels.append(f"exercise:{node['label']}")
    elif isinstance(node, exercises.solution_node):
        box = "booksolution"
    else:
        box = BOXES.get(kind, "bookresult")
    anchors = "".join(f"\\label{{{label}}}" for label in labels)
    if box == "bookexercise":  # a reference from another chapter asks the label for its number, and LaTeX counts no exercises
        anchors = f"\\booknumber{{{exercise_number(self, node, 'exercise')}}}{anchors}"
    self.body.append(f"\n\\phantomsection{anchors}\\begin{{{box}}}{{")
    title = node.children[0] if node.children and isinstance(node.children[0], nodes.title) else None
    if box in ("bookdefinition", "bookresult"):
        number = "" if node.get("nonumber") else " " + results.get_node_number(self, node, node.get("countertype", ""))
        self.body.append(f"{kind.title()}{number.rstrip()} ")
    if title is not None:
        for child in title.children:
            child.walkabout(self)
        node.remove(title)
    self.body.append("}\n")
    node["box"] = box


def depart_box(self: LaTeXTranslator, node: nodes.Element) -> None:
    self.body.append(f"\\end{{{node['box']}}}\n")


def visit_proof(self: LaTeXTranslator, node: nodes.Element) -> None:
    """What sphinx-proof writes is an admonition without a title whose text begins with the word "Proof."; the word becomes bold."""
    node.children = [child for admonition in node.children for child in admonition.children]
    first = next(node.findall(nodes.Text))
    first.parent.replace(first, [nodes.strong("", "Proof."), nodes.Text(" " + first.astext().removeprefix("Proof. "))])
    self.body.append("\n\\begin{bookproof}\n")


def depart_proof(self: LaTeXTranslator, node: nodes.Element) -> None:
    self.body.append("\\end{bookproof}\n")


def configure(app: Sphinx, config: Any) -> None:
    """The document's settings. After sphinx-jupyterbook-latex, which adds to the preamble at the same event."""
    elements = config["latex_elements"]
    elements.update(
        papersize="a4paper",
        pointsize="10pt",
        extraclassoptions="openany,oneside",
        fncychap="",
        figure_align="H",
        fontpkg="",
        geometry=r"\usepackage[a4paper,textwidth=15.6cm,textheight=24cm,headsep=8mm,footskip=12mm]{geometry}",
        maketitle=r"\booktitlepage",
        tableofcontents=r"\sphinxtableofcontents\chapter{About this book}",
        sphinxsetup="verbatimwrapslines=true,verbatimforcewraps=true,verbatimhintsturnover=false",
        fvset=r"\fvset{fontsize=\fontsize{8.8}{11}\selectfont}",  # a line of 100 columns has room in it
    )
    elements["preamble"] = elements.get("preamble", "") + (HERE / "latex_pages.tex").read_text(encoding="utf-8")
    config["latex_documents"] = [(config["master_doc"], f"{TARGET}.tex", config["html_title"], config["author"], "jupyterBook")]
    config["latex_show_urls"] = "no"
    config["latex_domain_indices"] = False


def one_count(app: Sphinx) -> None:
    """Figures are counted through the whole book, as on the web. And the document class asks for a package of a font that nothing here uses."""
    if app.builder.name == "latex":
        app.config["numfig_secnum_depth"] = 0
        (pathlib.Path(app.outdir) / "bbm.sty").write_text("\\ProvidesPackage{bbm}\n\\newcommand{\\mathbbm}[1]{\\mathbb{#1}}\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(PrintMotion)
    app.add_post_transform(PrintDrawings)
    app.add_post_transform(Unfold)
    app.add_post_transform(SetHangul)
    app.add_post_transform(BreakCode)
    app.add_post_transform(WrapLongTables)
    for kind in results.NODE_TYPES.values():
        app.registry.add_translation_handlers(kind, latex=(visit_box, depart_box))
    app.registry.add_translation_handlers(results.proof_node, latex=(visit_proof, depart_proof))
    for kind in (exercises.exercise_node, exercises.exercise_enumerable_node, exercises.solution_node):
        app.registry.add_translation_handlers(kind, latex=(visit_box, depart_box))
    app.connect("config-inited", configure, priority=900)
    app.connect("builder-inited", one_count, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
