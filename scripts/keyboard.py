"""Reading a page with the keyboard alone: what a mouse can act on, a key must reach and set off. Used by check_site.py."""

from playwright.sync_api import Page

# What invites a click: links, controls, and whatever else shows the pointing hand. Each must be, hold or lie in something that takes the focus by Tab.
UNREACHED = """() => {
  const tabs = e => e.tabIndex >= 0 && !e.disabled && !e.closest('[inert]');
  const seen = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const controls = 'a[href], button, input, select, textarea, summary, label, [onclick], [role=button], [role=tab], [role=link]';
  const hand = [...document.querySelectorAll('body *')].filter(e => getComputedStyle(e).cursor === 'pointer');
  const found = [...new Set([...document.querySelectorAll(controls), ...hand])].filter(seen).filter(e => !e.disabled);
  const near = e => {
    for (let up = e; up; up = up.parentElement) if (up.tabIndex >= 0 && tabs(up)) return true;
    if (e.control && seen(e.control) && tabs(e.control)) return true;
    return [...e.querySelectorAll('a[href], button, input, summary, [tabindex]')].some(inner => seen(inner) && tabs(inner));
  };
  const refuses = e => { if (!e.matches('a[href], button, input, select, textarea, summary')) return false; e.focus({preventScroll: true}); return document.activeElement !== e; };
  return found.filter(e => !near(e) || (tabs(e) && refuses(e)))
    .map(e => `${e.tagName.toLowerCase()}${e.id ? '#' + e.id : ''}${e.className && e.className.baseVal === undefined ? '.' + e.className.trim().split(/\\s+/).join('.') : ''} ${e.textContent.trim().slice(0, 40)}`);
}"""
FOLDS = "article details > summary, article .toggle-button"
FOLD_STATE = """e => e.tagName === 'SUMMARY' ? e.parentElement.open : !e.closest('.toggle').classList.contains('toggle-hidden')"""
ORDER = """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex]')]
  .filter(e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length).map((e, i) => e.tabStop = i).length"""
MOST_TABS = 3000


def unreached(page: Page) -> list[str]:
    """What shows itself as something to click and takes no focus from the keyboard, one line each."""
    return page.evaluate(UNREACHED)


def open_folds(page: Page) -> list[str]:
    """Open every folded part of the text by the Enter key; the ones that stay closed."""
    closed = []
    for fold in page.locator(FOLDS).element_handles():  # a locator would look for its element again at each step, in a large page for seconds
        if fold.is_visible() and not fold.evaluate(FOLD_STATE):
            fold.focus()
            fold.press("Enter")
            if not fold.evaluate(FOLD_STATE):
                closed.append(f"a folded part stays closed when its button is focused and Enter is pressed: {fold.inner_text()[:40]!r}")
    return closed


def walk(page: Page) -> list[str]:
    """Press Tab from the top of the page to its end; the tab stops that it passes over, and a trap if the focus never leaves."""
    stops = page.evaluate(ORDER)
    if not stops:
        return []
    page.evaluate("() => [...document.querySelectorAll('*')].find(e => e.tabStop === 0).focus()")
    reached = {0}
    for _ in range(min(stops + 20, MOST_TABS)):
        page.keyboard.press("Tab")
        stop = page.evaluate("() => document.activeElement === document.body ? -1 : document.activeElement.tabStop ?? -2")
        if stop in (-1, 0):
            break
        reached |= {stop} - {-2}
    missed = sorted(set(range(stops)) - reached)
    if not missed:
        return []
    first = page.evaluate("i => [...document.querySelectorAll('*')].find(e => e.tabStop === i).outerHTML.slice(0, 80)", missed[0])
    return [f"Tab reaches {len(reached)} of {stops} tab stops; the first that it misses: {first}"]
