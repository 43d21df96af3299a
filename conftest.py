"""Settings that hold for every test, the notebooks' kernels included: the CPU computes, and nothing reaches for the network.

This file stands in the root so that `pytest book/x.ipynb` reads it too.
"""

import os

os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
