"""Check the built book: its links on disk, then every page in a headless Chromium.

On disk: each internal link, anchor, picture, script and style sheet exists. In the browser, for each page: no request leaves this machine, the
console shows no error, every formula is rendered, axe-core finds no violation of WCAG 2.1 A and AA (on a desktop and on a phone, colors in the light
and in the dark theme), nothing is wider than a tablet or a phone, and every scrub strip answers the arrow keys. Then once: the search finds a page,
the theme button switches themes. Several browsers share the pages, one a core, four at most.

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

import axe_playwright_python
from bs4 import BeautifulSoup
from playwright.sync_api import BrowserContext, Locator, Page, Playwright, Route, TimeoutError, sync_playwright
from read_book import QuietHandler

AXE = pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
DESKTOP, TABLET, PHONE = {"width": 1280, "height": 900}, {"width": 768, "height": 1024}, {"width": 390, "height": 844}
THEMES = ("light", "dark")
MOST_BROWSERS = 4
SEARCH_TIMEOUT = 10_000  # milliseconds
AFTER_RESIZE = 600  # milliseconds: the theme waits 300 before it gives what scrolls now a tab stop
AT_ONCE = "*, ::before, ::after { transition: none !important; animation: none !important }"  # a color on its way to another would be judged
GENERATED = ("index.html", "genindex.html", "prf-prf.html")

FORMULAS = """async () => {
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const math = [...document.querySelectorAll('.math')];
  const wrong = '[data-mjx-error], mjx-merror, [data-mml-node=merror], mjx-container [fill=red], mjx-container [style*="color: red"]';
  const walker = document.createTreeWalker(document.querySelector('article') || document.body, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (walker.nextNode())
    if (!walker.currentNode.parentElement.closest('pre, code, script, style, mjx-container') && /\\\\[([]|\\$/.test(walker.currentNode.data))
      raw.push(walker.currentNode.data.trim().slice(0, 60));
  return {count: math.length, raw,
          unrendered: math.filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 60)),
          wrong: [...document.querySelectorAll(wrong)].map(e => e.getAttribute('data-mjx-error') || e.textContent.slice(0, 60))};
}"""
VIOLATIONS = """async options => (await axe.run(document, {preload: false, resultTypes: ['violations'], ...options})).violations.map(v =>
  `${v.id} (${v.impact}) at ${v.nodes.length} places, first ${v.nodes[0].target.join(' ')}: ${v.nodes[0].failureSummary.replace(/\\s+/g, ' ').slice(0, 240)}`)"""
COLOR_RULES = ["color-contrast", "link-in-text-block"]
COLORS = {"runOnly": COLOR_RULES}
ALL_BUT_COLORS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "rules": {rule: {"enabled": False} for rule in COLOR_RULES}}
NOTE_LOOKS = """() => {
  const names = new Map(), looks = new Map();
  const look = e => {
    if (!e) return '';
    if (!looks.has(e)) {
      const s = getComputedStyle(e);
      const all = [s.color, s.backgroundColor, s.backgroundImage, s.fontSize, s.fontWeight, s.opacity, s.textShadow, s.filter, look(e.parentElement)].join();
      if (!names.has(all)) names.set(all, names.size);
      looks.set(e, names.get(all));
    }
    return looks.get(e);
  };
  for (const e of document.querySelectorAll('pre span')) e.look = `${e.look || ''} ${look(e)}`;
}"""
LIGHTEN = """() => {
  const kept = {};
  for (const e of document.querySelectorAll('pre span')) {
    const says = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim()) && e.checkVisibility();
    const inside = says && e.getBoundingClientRect().right <= e.closest('pre').getBoundingClientRect().right;
    const key = `${e.look} ${inside}`;
    if (says && (kept[key] = (kept[key] || 0) + 1) <= 3) continue;
    e.replaceWith(...e.childNodes);
  }
  document.querySelectorAll('pre').forEach(e => e.normalize());
  document.querySelectorAll('mjx-container').forEach(e => e.remove());
}"""
TOO_WIDE = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? null :
  [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).slice(0, 3).map(e => `${e.tagName}.${e.className}`).join(', ') || 'the page'"""
STRIP_STATE = """strip => ({shown: [...strip.querySelectorAll('img')].flatMap((img, i) => img.checkVisibility() ? [i] : []),
  says: strip.querySelector('input[type=range]').getAttribute('aria-valuetext')})"""
THEME = "() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"


def find_chromium(playwright: Playwright) -> str | None:
    """The path of an installed Chromium, or of the one that `playwright install chromium` fetched; None without either."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    own = playwright.chromium.executable_path
    return found or (own if pathlib.Path(own).exists() else None)


def pages_of(site: pathlib.Path) -> list[str]:
    """The pages that a reader sees, as paths relative to the site."""
    pages = (path.relative_to(site) for path in sorted(site.rglob("*.html")))
    return [page.as_posix() for page in pages if not page.parts[0].startswith("_") and page.as_posix() not in GENERATED]


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


class Visitor:
    """One browser tab on the served site; `problems` collects what it finds, one line each."""

    def __init__(self, context: BrowserContext, base: str, shots: pathlib.Path | None):
        self.base, self.shots, self.problems = base, shots, []
        self.where = ""
        context.route("**/*", self._only_this_machine)
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.say(f"console: {message.text[:200]}") if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.say(f"script error: {str(error)[:200]}"))
        self.page.on("response", lambda response: self.say(f"{response.status} for {response.url}") if response.status >= 400 else None)

    def say(self, problem: str) -> None:
        self.problems.append(f"{self.where}: {problem}")
        print(f"  {self.problems[-1]}")

    def _only_this_machine(self, route: Route) -> None:
        if route.request.url.startswith((f"{self.base}/", "data:", "blob:")):
            route.continue_()
        else:
            self.say(f"request to another machine: {route.request.url}")
            route.abort()

    def open(self, address: str) -> None:
        self.where = address
        self.page.set_viewport_size(DESKTOP)
        self.page.goto(f"{self.base}/{address}", wait_until="load")

    def shoot(self, kind: str) -> None:
        if self.shots:
            self.page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
            self.page.screenshot(path=self.shots / f"{self.where.replace('/', '_').removesuffix('.html')}.{kind}.png", full_page=True)

    def visit(self, address: str) -> None:
        """All checks of one page."""
        self.open(address)
        self.page.add_style_tag(content=AT_ONCE)
        formulas = self.page.evaluate(FORMULAS)
        for kind in ("unrendered", "wrong", "raw"):
            for formula in formulas[kind]:
                self.say(f"formula {kind}: {formula}")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        self.look_for(ALL_BUT_COLORS, "desktop")
        for theme in THEMES:
            self.wear(theme)
            self.page.evaluate(NOTE_LOOKS)
            self.shoot(theme)
        strips = self.page.locator(".scrub").all()
        for strip in strips:
            self.scrub(strip)
        self.page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
        for size in (TABLET, PHONE):
            self.page.set_viewport_size(size)
            self.page.wait_for_timeout(AFTER_RESIZE)
            if wide := self.page.evaluate(TOO_WIDE):
                self.say(f"wider than {size['width']} px: {wide}")
        self.look_for(ALL_BUT_COLORS, "phone")
        self.shoot("phone")
        self.check_colors()
        print(f"{address}: {formulas['count']} formulas, {len(strips)} strips")

    def check_colors(self) -> None:
        """Contrasts in both themes and on a phone, last, since the page is made lighter for it, which makes axe some ten times faster.

        Of the thousands of pieces of highlighted code three of each look (its style and those around it, in both themes) stay, inside and outside of what is
        scrolled into view; the rest becomes plain text. Formulas go: MathJax draws them without text that axe could judge.
        """
        self.page.set_viewport_size(DESKTOP)
        self.page.evaluate(LIGHTEN)
        for theme in THEMES:
            self.wear(theme)
            self.look_for(COLORS, theme)
        self.page.set_viewport_size(PHONE)
        self.page.wait_for_timeout(AFTER_RESIZE)
        self.look_for(COLORS, "phone")

    def look_for(self, rules: dict, where: str) -> None:
        for violation in self.page.evaluate(VIOLATIONS, rules):
            self.say(f"accessibility, {where}: {violation}")

    def wear(self, theme: str) -> None:
        self.page.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)
        self.page.wait_for_timeout(300)

    def scrub(self, strip: Locator) -> None:
        """A strip shows one frame; a key on its slider shows another and says so."""
        slider = strip.locator("input[type=range]")
        if slider.count() != 1:
            self.say("a scrub strip without its one slider")
            return
        strip.evaluate("e => { for (let d = e.closest('details'); d; d = d.parentElement.closest('details')) d.open = true; }")
        before = strip.evaluate(STRIP_STATE)
        slider.focus()
        slider.press("ArrowRight" if slider.evaluate("e => +e.value < +e.max") else "ArrowLeft")
        after = strip.evaluate(STRIP_STATE)
        if len(before["shown"]) != 1 or len(after["shown"]) != 1 or before == after or before["shown"] == after["shown"]:
            self.say(f"a scrub strip shows frames {before['shown']} and after an arrow key {after['shown']}; expected one, then another")
        if before["says"] == after["says"]:
            self.say(f"a scrub strip announces {after['says']!r} before and after an arrow key")

    def search(self, word: str) -> None:
        self.open(f"search.html?q={word}")
        try:
            self.page.wait_for_selector("#search-results li", timeout=SEARCH_TIMEOUT)
        except TimeoutError:
            self.say(f"the search for {word!r} found nothing")

    def switch_themes(self, address: str) -> None:
        self.open(address)
        button = self.page.locator("button.theme-switch-button:visible")
        if not button.count():
            self.say("no theme button")
            return
        seen = {}
        for _ in range(3):
            button.first.click()
            self.page.wait_for_timeout(300)
            theme, background = self.page.evaluate(THEME)
            seen[theme] = background
        if set(seen) != {"light", "dark"} or len(set(seen.values())) != 2:
            self.say(f"three clicks on the theme button gave {seen}; expected light and dark on different backgrounds")


def check_in_browser(site: pathlib.Path, shots: pathlib.Path | None = None, search: str = "diffusion") -> list[str] | None:
    """Everything wrong that a browser can see in the site, one line each, in the order of the pages; None when there is no Chromium to look with."""
    with sync_playwright() as playwright:
        chromium = find_chromium(playwright)
    if chromium is None:
        return None
    pages = pages_of(site)
    jobs = [functools.partial(Visitor.visit, address=page) for page in pages]
    jobs += [functools.partial(Visitor.search, word=search), functools.partial(Visitor.switch_themes, address=pages[0])]
    long_first = sorted(range(len(pages)), key=lambda number: -(site / pages[number]).stat().st_size)
    waiting = iter([*long_first, len(pages), len(pages) + 1])
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
    found = check_in_browser(site, args.shots)
    if found is None:
        print(f"Browser check skipped: no Chromium here. Looked for {', '.join(CHROMIUM_NAMES)} and for the one of `playwright install chromium`.")
        return int(bool(problems) or bool(os.environ.get("CI")))
    print(f"Browser: {len(found)} problems")
    return int(bool(problems or found))


if __name__ == "__main__":
    sys.exit(main())
