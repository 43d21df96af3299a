"""The scrub strip and the animation under a reader's hands: keys, the mouse, no scripts, reduced motion, a page's own style against them."""

import numpy as np
from playwright.sync_api import Browser, Locator, Page

from diffusion_core import plots

FRAMES = [np.full((40, 80, 3), 40 * i, dtype=np.uint8) for i in range(5)]
LABELS = [f"t = {i / 4:.2f}" for i in range(5)]
SHOWN = "figure => [...figure.querySelectorAll('img')].flatMap((img, i) => img.checkVisibility() && img.naturalWidth ? [i] : [])"


def page_of(browser: Browser, *elements, **context) -> Page:
    """The elements as the built book holds them, under a style sheet as forceful as the theme's."""
    style = ".bd-article div.cell_output img{display:block;padding:.5rem} .bd-article figure{margin:2rem;padding:1rem}"
    body = "".join(f'<div class="cell_output"><div class="output text_html">{element._repr_html_()}</div></div>' for element in elements)
    page = browser.new_context(**context).new_page()
    page.set_content(f'<html lang="en"><title>t</title><style>{style}</style><main class="bd-article"><h1>t</h1>{body}</main></html>')
    return page


def strip(**options) -> plots.Element:
    return plots.scrub(FRAMES, LABELS, **{"alt": "a gray square"} | options)


def state(figure: Locator) -> tuple[list[int], str, str]:
    """(frames that are visible, what a screen reader says, what stands beside the slider)"""
    return figure.evaluate(SHOWN), figure.get_by_role("slider").get_attribute("aria-valuetext"), figure.locator("output").inner_text()


def test_keys_move_one_strip_and_no_other(browser: Browser) -> None:
    page = page_of(browser, strip(), strip(), strip(start=3))
    first, second, third = page.locator(".scrub").all()
    first.get_by_role("slider").focus()
    for key, index in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 4), ("ArrowRight", 4), ("Home", 0)):
        page.keyboard.press(key)
        assert state(first) == ([index], LABELS[index], LABELS[index])
    assert state(second) == ([0], "t = 0.00", "t = 0.00") and state(third) == ([3], "t = 0.75", "t = 0.75")
    third.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert state(third)[0] == [4] and state(first)[0] == [0]


def test_a_live_notebook_inserts_it(browser: Browser) -> None:
    """A notebook's front end sets an output's innerHTML, where the browser runs no script element."""
    page = page_of(browser)
    page.evaluate("html => { document.querySelector('main').innerHTML = html }", strip()._repr_html_())
    page.get_by_role("slider").focus()
    page.keyboard.press("ArrowRight")
    assert state(page.locator(".scrub")) == ([1], "t = 0.25", "t = 0.25")


def test_the_slider_follows_the_mouse_and_is_large_enough_to_touch(browser: Browser) -> None:
    page = page_of(browser, strip(), viewport={"width": 390, "height": 844}, has_touch=True)
    slider, figure = page.get_by_role("slider", name="Time"), page.locator(".scrub")
    box = slider.bounding_box()
    assert box["height"] >= 44 and figure.get_by_role("button").bounding_box()["height"] >= 44
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert state(figure)[0] == [2]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_play_runs_to_the_end_and_stops(browser: Browser) -> None:
    page = page_of(browser, strip(seconds=0.8), strip(seconds=4.0))
    quick, slow = page.locator(".scrub").all()
    quick.get_by_role("button", name="Play").click()
    assert quick.get_by_role("button", name="Pause").count() == 1
    quick.get_by_role("button", name="Play").wait_for(timeout=10_000)
    assert state(quick) == ([4], "t = 1.00", "t = 1.00") and state(slow)[0] == [0]
    slow.get_by_role("button", name="Play").click()
    slow.get_by_role("button", name="Pause").click()
    before = state(slow)
    page.wait_for_timeout(1300)
    assert state(slow) == before and before[0][0] < 4 and slow.get_by_role("button", name="Play").count() == 1


def test_play_begins_again_at_the_end(browser: Browser) -> None:
    page = page_of(browser, strip(start=4, seconds=8.0))
    page.get_by_role("button", name="Play").click()
    assert state(page.locator(".scrub"))[0] == [0]


def test_without_scripts_the_first_frame_stays(browser: Browser) -> None:
    page = page_of(browser, strip(start=1), java_script_enabled=False)
    assert [image.is_visible() for image in page.locator(".scrub img").all()] == [i == 1 for i in range(5)]
    assert not page.locator(".scrub .bar").is_visible()


def test_animation_can_be_paused_and_respects_reduced_motion(browser: Browser) -> None:
    animation = plots.animate(FRAMES, alt="a gray square")
    page = page_of(browser, animation)
    figure = page.locator(".motion")
    assert figure.evaluate(SHOWN) == [0]
    figure.get_by_role("checkbox", name="Pause").focus()
    page.keyboard.press("Space")
    assert figure.evaluate(SHOWN) == [1]
    still = page_of(browser, animation, strip(), reduced_motion="reduce")
    assert still.locator(".motion").evaluate(SHOWN) == [1] and not still.locator(".motion label").is_visible()
    assert not still.locator(".scrub button").is_visible() and still.get_by_role("slider").is_visible()
