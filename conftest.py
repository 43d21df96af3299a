"""Settings that hold for every test, the notebooks' kernels included: the CPU computes, idle threads sleep, nothing reaches for the network.

This file stands in the root so that `pytest book/x.ipynb` reads it too.
"""

import os

os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin between small steps starve whatever else runs
os.environ["HF_HUB_OFFLINE"] = "1"
