"""Unit tests draw figures without a window, and leave none to the next test; those that look at a page share the way to a browser."""

import os
from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import pytest
from check_site import FLAGS, find_chromium
from playwright.sync_api import Browser, sync_playwright

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def no_figure_is_left_open() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium. Without one the tests are skipped, and fail where CI is set."""
    with sync_playwright() as playwright:
        chromium = find_chromium(playwright)
        if chromium is None:
            message = "no Chromium here; install one, or run `playwright install chromium`"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()
