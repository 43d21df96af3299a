"""A small Sphinx extension for this book: pages that need no network, that are accessible, and that show a check as a check."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

CHECK_MARK = "✓ "
REPLACEMENTS = (
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    (' role="doc-biblioentry"', ""),
    ("<p>Proof. ", '<p><span class="proof-word">Proof.</span> '),
    ('class="proof admonition" id="proof"', 'class="proof admonition"'),
    *((f' id="{name}-content">', ">") for name in ("proof", "exercise", "solution")),
)


class MarkChecks(SphinxPostTransform):
    """Give an output the class `checks` when every line of it is the line of a passed check, so that the style sheet can find it."""

    default_priority = 900

    def run(self, **kwargs: Any) -> None:
        for block in self.document.findall(nodes.literal_block):
            lines = block.astext().strip().splitlines()
            if "output" in block["classes"] and lines and all(line.startswith(CHECK_MARK) for line in lines):
                block["classes"].append("checks")


def tidy_page(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Drop scripts that are declared twice or that only serve live kernels (thebe), and mend three things in the page's HTML.

    docutils puts each reference (role doc-biblioentry) straight into a list (role list), which the ARIA standard does not allow.
    sphinx-proof and sphinx-exercise begin a proof with the bare word "Proof." and give every box without a label the same id.
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
    if body:
        context["body"] = body


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(MarkChecks)
    app.connect("html-page-context", tidy_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
