"""A small Sphinx extension for this book: pages that need no network, that are accessible, and that show a check as a check."""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

CHECK_MARK = "✓ "
OPENING = re.compile(r"[(\[“‘]+$")
CLOSING = re.compile(r"[)\].,;:!?”’%]+|-\w+")
REPLACEMENTS = (
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),
    ("<p>Proof. ", '<p><span class="proof-word">Proof.</span> '),
    ('class="proof admonition" id="proof"', 'class="proof admonition"'),
    *((f' id="{name}-content">', ">") for name in ("proof", "exercise", "solution")),
)
SOLUTION_LINK = re.compile(r"Solution to(<a [^>]*>) ")


class MarkChecks(SphinxPostTransform):
    """Give an output the class `checks` when every line of it is the line of a passed check, so that the style sheet can find it."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            lines = block.astext().strip().splitlines()
            if "output" in block["classes"] and lines and all(line.startswith(CHECK_MARK) for line in lines):
                block["classes"].append("checks")


class KeepTogether(SphinxPostTransform):
    """Tie a formula in a line of text to the bracket before it and to the punctuation after it: a browser may break a line at either side of a formula."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for formula in list(self.document.findall(nodes.math)):
            parent, at = formula.parent, formula.parent.index(formula)
            before, after = (str(parent[i]) if 0 <= i < len(parent) and type(parent[i]) is nodes.Text else "" for i in (at - 1, at + 1))
            opening, closing = OPENING.search(before), CLOSING.match(after)
            if opening:
                parent[at - 1] = nodes.Text(before[: opening.start()])
            if closing:
                parent[at + 1] = nodes.Text(after[closing.end() :])
            if opening or closing:
                tied = [nodes.Text(opening[0])] if opening else []
                tied += [formula, *([nodes.Text(closing[0])] if closing else [])]
                parent[at] = nodes.inline("", "", *tied, classes=["keep"])


def tidy_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Drop scripts that are declared twice or that only serve live kernels (thebe), and mend four things in the page's HTML.

    docutils puts each reference (role doc-biblioentry) straight into a list (role list), which the ARIA standard does not allow.
    sphinx-proof and sphinx-exercise begin a proof with the bare word "Proof.", give every box without a label the same id, and put the blank after
    "Solution to" into the link.
    """
    kept, seen = [], set()
    for script in context.get("script_files", []):
        key = (str(getattr(script, "filename", script) or ""), getattr(script, "attributes", {}).get("body") or "")
        if "thebe" in "".join(key).lower() or key in seen:
            continue
        seen.add(key)
        kept.append(script)
    context["script_files"][:] = kept
    body = context.get("body") or ""
    for old, new in REPLACEMENTS:
        body = body.replace(old, new)
    body = SOLUTION_LINK.sub(r"Solution to \1", body)
    if body:
        context["body"] = body


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(MarkChecks)
    app.add_post_transform(KeepTogether)
    app.connect("html-page-context", tidy_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
