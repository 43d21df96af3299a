"""What each page of the built book weighs: its HTML and the pictures it shows, without what all pages share (MathJax, the theme).

Prints a table. Exit status 1 when a page, or the median page, is over its limit.
"""

import argparse
import pathlib
import statistics
import sys
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

PAGE_LIMIT = 3_000_000
MEDIAN_LIMIT = 1_500_000
SHARED = ("_static", "_sources")
GENERATED = ("index.html", "genindex.html", "prf-prf.html")


def pages_of(site: pathlib.Path) -> list[str]:
    """The pages that a reader sees, as paths relative to the site."""
    pages = (path.relative_to(site) for path in sorted(site.rglob("*.html")))
    return [page.as_posix() for page in pages if not page.parts[0].startswith("_") and page.as_posix() not in GENERATED]


def weight(site: pathlib.Path, page: str) -> int:
    """Bytes of a page's HTML, which holds the animations and the strips, and of each picture file that it shows."""
    path = site / page
    soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
    sources = {str(tag["src"]) for tag in soup.find_all(["img", "source", "video"], src=True)}
    local = {(path.parent / unquote(urlsplit(source).path)).resolve() for source in sources if not urlsplit(source).scheme}
    pictures = [file for file in local if file.is_file() and not set(SHARED) & set(file.relative_to(site.resolve()).parts)]
    return path.stat().st_size + sum(picture.stat().st_size for picture in pictures)


def weights(site: pathlib.Path) -> dict[str, int]:
    return {page: weight(site, page) for page in pages_of(site)}


def too_heavy(found: dict[str, int]) -> list[str]:
    """Pages over the limit, and the median when it is over its own."""
    problems = [f"{page}: {size / 1e6:.2f} MB, {PAGE_LIMIT / 1e6:.1f} MB at most for a page" for page, size in found.items() if size > PAGE_LIMIT]
    if found and (median := statistics.median(found.values())) > MEDIAN_LIMIT:
        problems.append(f"the median page weighs {median / 1e6:.2f} MB, {MEDIAN_LIMIT / 1e6:.1f} MB at most")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=pathlib.Path, nargs="?", default=pathlib.Path("_build/html"), help="the folder of the built book (default: _build/html)")
    args = parser.parse_args()
    if not (args.site / "index.html").exists():
        parser.error(f"no book in {args.site}: build it first with `make book`")
    found = weights(args.site)
    for page, size in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{size / 1e6:6.2f} MB  {page}")
    print(f"{statistics.median(found.values()) / 1e6:6.2f} MB  the median of {len(found)} pages")
    problems = too_heavy(found)
    print("\n".join(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
