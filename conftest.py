"""Settings that hold for every test, the notebooks' kernels included: one thread of the CPU computes, nothing reaches for the network.

This file stands in the root so that `pytest book/x.ipynb` reads it too.
"""

import os

os.environ["DIFFUSION_CORE_DEVICE"] = "cpu"
os.environ["OMP_NUM_THREADS"] = "1"  # the same digits on any number of cores, and small networks are no slower
os.environ["HF_HUB_OFFLINE"] = "1"
