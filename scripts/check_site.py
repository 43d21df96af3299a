"""Check the built book: its links and its weight on disk, then every page in a headless Chromium.

On disk: each internal link, anchor, picture, script and style sheet exists, and no page is heavier than page_weight.py allows. In the browser, for each
page: the first content stands within a second, no request leaves this machine, the console shows no error, every formula is rendered, axe-core finds no
violation of WCAG 2.1 A and AA (on a desktop and on a phone, colors in the light and in the dark theme), nothing is wider than a tablet or a phone, every
scrub strip answers the arrow keys, every fold opens by Enter, and what can be clicked takes the focus. Then once, by keys alone: the search finds a page,
the theme button switches themes. And some pages are read from the folder, without a server: formulas, pictures, strips, search, each tab stop in turn, and
what they are on paper. Several browsers share the pages, one a core, four at most.

Exit status 0 when all of it holds. Without a Chromium the browser part is skipped with a printed reason; with the variable CI set, that fails.
"""

import argparse
import concurrent.futures
import functools
import http.server
import os
import pathlib
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup
from page_weight import pages_of, too_heavy, weights
from playwright.sync_api import Playwright, sync_playwright
from read_book import QuietHandler
from site_visitor import DESKTOP, Visitor

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
MOST_BROWSERS = 4


def find_chromium(playwright: Playwright) -> str | None:
    """The path of an installed Chromium, or of the one that `playwright install chromium` fetched; None without either."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    own = playwright.chromium.executable_path
    return found or (own if pathlib.Path(own).exists() else None)


def broken_links(site: pathlib.Path) -> Iterator[str]:
    """Links from a page to a file that is not in the site, or to an anchor that is not in the file."""
    soups = {page: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser") for page in sorted(site.rglob("*.html")) if "_static" not in page.parts}
    anchors = {page: {tag.get("id") or tag.get("name") for tag in soup.find_all(lambda tag: tag.has_attr("id") or tag.name == "a")} for page, soup in soups.items()}
    for page, soup in soups.items():
        for tag in soup.find_all(["a", "img", "script", "link", "source"]):
            url = urlsplit(tag.get("href") or tag.get("src") or "")
            if url.scheme or url.netloc or (not url.path and not url.fragment):
                continue
            target = (site / url.path.lstrip("/") if url.path.startswith("/") else page.parent / unquote(url.path)).resolve() if url.path else page
            if not target.exists():
                yield f"{page.relative_to(site)}: link to {url.path}, which is not there"
            elif url.fragment and target in anchors and unquote(url.fragment) not in anchors[target]:
                yield f"{page.relative_to(site)}: link to {url.path}#{url.fragment}, and no element has that id"


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *where) -> None:
        """A page that is left while it still loads is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*where)


def check_in_browser(site: pathlib.Path, shots: pathlib.Path | None = None, search: str = "diffusion") -> list[str] | None:
    """Everything wrong that a browser can see in the site, one line each, in the order of the pages; None when there is no Chromium to look with."""
    with sync_playwright() as playwright:
        chromium = find_chromium(playwright)
    if chromium is None:
        return None
    pages = pages_of(site)
    jobs = [functools.partial(Visitor.visit, address=page) for page in pages]
    jobs += [functools.partial(Visitor.search, address=pages[0], word=search), functools.partial(Visitor.switch_themes, address=pages[0])]
    jobs += [functools.partial(Visitor.read_from_folder, site=site, word=search)]
    long_first = sorted(range(len(pages)), key=lambda number: -(site / pages[number]).stat().st_size)
    waiting = iter([*long_first, *range(len(pages), len(jobs))])
    found: dict[int, list[str]] = {}
    turn = threading.Lock()

    def browse() -> None:
        with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
            context = playwright.chromium.launch_persistent_context(profile, executable_path=chromium, headless=True, args=FLAGS, viewport=DESKTOP)
            try:
                visitor = Visitor(context, f"http://127.0.0.1:{server.server_port}", shots)
                while True:
                    with turn:
                        number = next(waiting, None)
                    if number is None:
                        return
                    jobs[number](visitor)
                    found[number], visitor.problems = visitor.problems, []
            finally:
                context.close()

    server = Server(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        browsers = min(os.cpu_count() or 1, MOST_BROWSERS, len(pages))
        with concurrent.futures.ThreadPoolExecutor(browsers) as pool:
            for done in [pool.submit(browse) for _ in range(browsers)]:
                done.result()
    finally:
        server.shutdown()
    return [problem for number in sorted(found) for problem in found[number]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=pathlib.Path, nargs="?", default=pathlib.Path("_build/html"), help="the folder of the built book (default: _build/html)")
    parser.add_argument("--shots", type=pathlib.Path, help="a folder for screenshots of every page: light, dark, phone")
    args = parser.parse_args()
    site = args.site.resolve()
    if not (site / "index.html").exists():
        parser.error(f"no book in {args.site}: build it first with `make book`")
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    problems = list(broken_links(site))
    print("\n".join([*problems, f"Links: {len(problems)} broken"]))
    found_weights = weights(site)
    heavy = too_heavy(found_weights)
    print("\n".join([*heavy, f"Weight: the heaviest page {max(found_weights.values(), default=0) / 1e6:.2f} MB"]))
    problems += heavy
    found = check_in_browser(site, args.shots)
    if found is None:
        print(f"Browser check skipped: no Chromium here. Looked for {', '.join(CHROMIUM_NAMES)} and for the one of `playwright install chromium`.")
        return int(bool(problems) or bool(os.environ.get("CI")))
    print(f"Browser: {len(found)} problems")
    return int(bool(problems or found))


if __name__ == "__main__":
    sys.exit(main())
