"""The Python that the README and the first page show must run as it stands."""

import pathlib
import re

import pytest
import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("page", ["README.md", "book/intro.md"])
def test_snippet_draws_samples_of_the_ring(page):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) == 1
    names: dict = {}
    exec(snippets[0], names)
    radius = names["samples"].norm(dim=1)
    assert names["samples"].shape == (1000, 2) and torch.median(radius) == pytest.approx(1.4, abs=0.03) and radius.std() < 0.15
