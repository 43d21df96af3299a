"""A Sphinx extension: what leads from a page to the book's repository, all of it from one line, the address in `_config.yml` (`repository: url:`).

With an address each page gets the buttons to the repository, to its own source and to a new issue; on GitHub a notebook's page gets a button to Colab
too, and says which line to run there first, since Colab has torch and not this package. Without an address there is none of this, and no dead link.
"""

from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

BUTTONS = ("use_repository_button", "use_source_button", "use_issues_button")
COLAB = "https://colab.research.google.com"
PACKAGE = "diffusion-core[train,plot,evaluate]"


def address(config: Any) -> str:
    """The repository's address, or an empty text when none is set."""
    return str(config["html_theme_options"].get("repository_url") or "").strip().rstrip("/")


def on_github(config: Any) -> bool:
    return urlsplit(address(config)).netloc == "github.com"


def add_buttons(app: Sphinx, config: Any) -> None:
    options = config["html_theme_options"]
    options.update(dict.fromkeys(BUTTONS, bool(address(config))), repository_url=address(config), path_to_docs="")
    options["launch_buttons"] = {"colab_url": COLAB} if on_github(config) else {}


class SayHowInColab(SphinxPostTransform):
    """Before the first section of a notebook's page: the line that installs the package in Colab."""

    default_priority = 300
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        page = next(self.document.findall(nodes.section), None)
        if page is None or not on_github(self.config) or not self.env.doc2path(self.env.docname).endswith(".ipynb"):
            return
        line = f'%pip install "{PACKAGE} @ git+{address(self.config)}"'
        said = nodes.paragraph("", "", nodes.strong("", "In Colab"), nodes.Text(" (the rocket at the top of the page), run this in a cell of its own first:"))
        note = nodes.container("", said, nodes.literal_block(line, line, language="ipython"), classes=["in-colab"])
        first = next((i for i, child in enumerate(page) if isinstance(child, nodes.section)), len(page))
        page.insert(first, note)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_buttons)
    app.add_post_transform(SayHowInColab)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
