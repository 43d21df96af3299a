"""Settings that hold for every test, the notebooks' kernels included: one thread of the CPU computes, nothing reaches for the network.

DIFFUSION_CORE_TEST_THREADS=2 lets two compute: what a test asserts may not depend on it. This file stands in the root so that `pytest book/x.ipynb` reads it too.
"""

import os

import pytest

os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
os.environ["OMP_NUM_THREADS"] = os.environ.get("DIFFUSION_CORE_TEST_THREADS", "1")  # one: the same digits on any number of cores, and small networks are no slower
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several workers (`pytest -n`) begin with the notebooks, which are the long files, so that short ones fill the end. Alone, pytest keeps its order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.suffix != ".ipynb")
