"""One browser tab on the built book, and what it looks for in a page. Used by check_site.py."""

import pathlib

import axe_playwright_python
import keyboard
from page_weight import pages_of
from playwright.sync_api import BrowserContext, Locator, Page, Route, TimeoutError

AXE = pathlib.Path(axe_playwright_python.__file__).parent / "axe.min.js"
DESKTOP, TABLET, PHONE = {"width": 1280, "height": 900}, {"width": 768, "height": 1024}, {"width": 390, "height": 844}
THEMES = ("light", "dark")
SEARCH_TIMEOUT = 10_000  # milliseconds
AFTER_RESIZE = 600  # milliseconds: the theme waits 300 before it gives what scrolls now a tab stop
AT_ONCE = "*, ::before, ::after { transition: none !important; animation: none !important }"  # a color on its way to another would be judged
FIRST_CONTENT_LIMIT = 1000  # milliseconds from the click to the first text or picture
TRIES = 3  # a machine that does something else may be late once

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
FIRST_CONTENT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
NOT_LOADED = "() => [...document.images].filter(e => e.loading !== 'lazy' && !(e.complete && e.naturalWidth)).map(e => e.alt || e.src.slice(0, 80))"
ON_PAPER = """() => {
  dispatchEvent(new Event('beforeprint'));
  const around = [...document.querySelectorAll('.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .copybtn, .scrub button')].filter(e => e.checkVisibility());
  const folded = [...document.querySelectorAll('article details:not([open]), article .toggle-hidden')];
  const wide = [...document.querySelectorAll('article pre')].filter(e => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1);
  const found = [[around, 'is printed'], [folded, 'stays folded'], [wide, 'is cut off']].flatMap(([all, what]) =>
    all.map(e => `${e.tagName.toLowerCase()}.${e.className} ${what}: ${e.textContent.trim().slice(0, 40)}`));
  if (document.documentElement.dataset.theme === 'dark') found.push('the dark theme is printed');
  dispatchEvent(new Event('afterprint'));
  return found;
}"""
SEARCH_BUTTON = "button.search-button__button:visible, button.search-button:visible"
THEME = "() => [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"


class Visitor:
    """One browser tab on the served site; `problems` collects what it finds, one line each."""

    def __init__(self, context: BrowserContext, base: str, shots: pathlib.Path | None):
        self.base, self.shots, self.problems = base, shots, []
        self.where = ""
        self.page: Page = context.new_page()
        self.page.route("**/*", self._only_this_machine)
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
        self.time_first_content()
        self.page.add_style_tag(content=AT_ONCE)
        formulas = self.check_formulas()
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        self.look_for(ALL_BUT_COLORS, "desktop")
        for theme in THEMES:
            self.wear(theme)
            self.page.evaluate(NOTE_LOOKS)
            self.shoot(theme)
        strips = self.page.locator(".scrub").all()
        for strip in strips:
            self.scrub(strip)
        for problem in keyboard.open_folds(self.page):
            self.say(problem)
        for thing in keyboard.unreached(self.page):
            self.say(f"a mouse can click it and the keyboard cannot reach it: {thing}")
        self.page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
        for size in (TABLET, PHONE):
            self.page.set_viewport_size(size)
            self.page.wait_for_timeout(AFTER_RESIZE)
            if wide := self.page.evaluate(TOO_WIDE):
                self.say(f"wider than {size['width']} px: {wide}")
        self.look_for(ALL_BUT_COLORS, "phone")
        self.shoot("phone")
        self.check_colors()
        print(f"{address}: {formulas} formulas, {len(strips)} strips")

    def time_first_content(self) -> None:
        """The first content stands in time, at the best of three loads."""
        times = []
        for _ in range(TRIES):
            self.page.wait_for_function(FIRST_CONTENT)
            times.append(self.page.evaluate(FIRST_CONTENT))
            if times[-1] <= FIRST_CONTENT_LIMIT:
                return
            self.page.reload(wait_until="load")
        self.say(f"first content after {min(times):.0f} ms at best, {FIRST_CONTENT_LIMIT} at most")

    def check_formulas(self) -> int:
        """How many formulas the page has; one that is not rendered, or wrong, or raw text, is a problem."""
        formulas = self.page.evaluate(FORMULAS)
        for kind in ("unrendered", "wrong", "raw"):
            for formula in formulas[kind]:
                self.say(f"formula {kind}: {formula}")
        return formulas["count"]

    def read_from_folder(self, site: pathlib.Path, word: str) -> None:
        """The first page, one with a strip and one with an animation, and the search, opened as files by a visitor of their own."""
        visitor = Visitor(self.page.context, site.as_uri(), None)
        for address in pages_for_folder(site):
            visitor.open(address)
            formulas = visitor.check_formulas()
            for picture in visitor.page.evaluate(NOT_LOADED):
                visitor.say(f"a picture is not loaded: {picture}")
            for strip in visitor.page.locator(".scrub").all():
                visitor.scrub(strip)
            visitor.print_it()
            for problem in [*keyboard.open_folds(visitor.page), *keyboard.walk(visitor.page)]:
                visitor.say(problem)
            print(f"{address} from the folder: {formulas} formulas")
        visitor.search(address, word)
        visitor.switch_themes(address)
        self.problems += [f"from the folder: {problem}" for problem in visitor.problems]
        visitor.page.close()

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

    def print_it(self) -> None:
        """On paper, from the dark theme: nothing around the text, nothing folded, nothing cut off."""
        self.wear("dark")
        self.page.emulate_media(media="print")
        for problem in self.page.evaluate(ON_PAPER):
            self.say(f"on paper {problem}")
        self.page.emulate_media(media="screen")
        self.wear("light")

    def search(self, address: str, word: str) -> None:
        """From a page, by keys alone: the search button, the word, Enter."""
        self.open(address)
        button = self.page.locator(SEARCH_BUTTON)
        if not button.count():
            self.say("no search button")
            return
        button.first.focus()
        self.page.keyboard.press("Enter")
        self.page.wait_for_timeout(300)
        self.page.keyboard.type(word)
        self.page.keyboard.press("Enter")
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
            button.first.focus()
            self.page.keyboard.press("Enter")
            self.page.wait_for_timeout(300)
            theme, background = self.page.evaluate(THEME)
            seen[theme] = background
        if set(seen) != {"light", "dark"} or len(set(seen.values())) != 2:
            self.say(f"the theme button, pressed three times, gave {seen}; expected light and dark on different backgrounds")


def pages_for_folder(site: pathlib.Path) -> list[str]:
    """The first page, the first with a scrub strip and the first with an animation: where something could need a server."""
    pages = pages_of(site)
    texts = {page: (site / page).read_text(encoding="utf-8") for page in pages}
    with_motion = [next((page for page in pages if f'class="{kind}"' in texts[page]), None) for kind in ("scrub", "motion")]
    return list(dict.fromkeys(filter(None, ["book/intro.html" if "book/intro.html" in pages else pages[0], *with_motion])))
