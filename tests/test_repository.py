"""Buttons to the repository and to Colab: all there when the address is set in one place, none when it is not, and no link that leads nowhere."""

import pathlib

import nbformat.v4 as v4
import pytest
from bs4 import BeautifulSoup
from nbformat import writes
from small_book import build

ADDRESS = "https://github.com/someone/a-book"
KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python", "pygments_lexer": "ipython3"}}
NOTEBOOK = writes(v4.new_notebook(metadata=KERNEL, cells=[v4.new_markdown_cell("# A chapter\n\nText."), v4.new_markdown_cell("## One\n\nText."), v4.new_code_cell("1 + 1")]))
PAGES = {"book/intro.md": "# The book\n\nText.\n", "book/ground/chapter.ipynb": NOTEBOOK, "book/page.md": "# A page\n\n## One\n\nText.\n"}


def links(site: pathlib.Path, page: str) -> dict[str, str]:
    """The links of a page that leave the site: address -> text."""
    soup = BeautifulSoup((site / page).read_text(encoding="utf-8"), "html.parser")
    return {str(tag["href"]): tag.get_text(" ", strip=True) for tag in soup.find_all("a", href=True) if str(tag["href"]).startswith("http")}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    return {address: build(tmp_path_factory.mktemp("book"), PAGES, repository=address) for address in (ADDRESS, "")}


def test_with_the_address_a_notebook_has_all_buttons(sites: dict[str, pathlib.Path]) -> None:
    found = links(sites[ADDRESS], "book/ground/chapter.html")
    assert ADDRESS in found
    assert f"{ADDRESS}/blob/main/book/ground/chapter.ipynb?plain=1" in found
    assert any(link.startswith(f"{ADDRESS}/issues/new?") for link in found)
    assert "https://colab.research.google.com/github/someone/a-book/blob/main/book/ground/chapter.ipynb" in found
    text = BeautifulSoup((sites[ADDRESS] / "book/ground/chapter.html").read_text(encoding="utf-8"), "html.parser").select_one(".in-colab").get_text()
    assert f'%pip install "diffusion-core[train,plot,evaluate] @ git+{ADDRESS}"' in text


def test_a_page_that_is_no_notebook_has_the_source_and_no_colab(sites: dict[str, pathlib.Path]) -> None:
    found = links(sites[ADDRESS], "book/page.html")
    assert f"{ADDRESS}/blob/main/book/page.md?plain=1" in found
    assert not any("colab" in link for link in found)
    assert "in-colab" not in (sites[ADDRESS] / "book/page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["book/intro.html", "book/ground/chapter.html", "book/page.html", "search.html", "genindex.html"])
def test_without_an_address_nothing_leads_to_a_repository(sites: dict[str, pathlib.Path], page: str) -> None:
    assert set(links(sites[""], page)) <= {"https://creativecommons.org/licenses/by/4.0/"}
    text = (sites[""] / page).read_text(encoding="utf-8").lower()
    assert not any(word in text for word in ("colab", "executablebooks", "btn-source", "repository-button"))


@pytest.mark.parametrize("address", [ADDRESS, ""])
def test_a_notebook_can_be_downloaded_from_the_page(sites: dict[str, pathlib.Path], address: str) -> None:
    page = sites[address] / "book/ground/chapter.html"
    button = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select_one("a.btn-download-source-button")
    assert (page.parent / str(button["href"])).read_text(encoding="utf-8") == NOTEBOOK
