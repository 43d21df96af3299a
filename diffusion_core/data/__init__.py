"""Data: image sets, the two-dimensional toys, and the book's eight fixed noises.

    x, labels = images("digits")       # (8000, 1, 28, 28) in [-1, 1], and the classes
    x, labels = images("mnist")        # all 60,000, fetched at the first call
    x = toy("moons", 1000, generator)  # points (1000, 2) of unit scale
    noise = travellers(1, 28, 28)      # the same eight noises in every chapter

`embedded` reads the sets that the package carries and needs no network: where the files come from, and under which licenses, stands in
`datasets/ATTRIBUTION.md`; `scripts/build_datasets.py` builds them again. `online` fetches the full sets, through `download`, and keeps
them in a cache folder; `formats` reads them. The captioned scenes live in `diffusion_core.shapes`.
"""

from diffusion_core.data.embedded import DATASETS as DATASETS
from diffusion_core.data.embedded import SHA256 as SHA256
from diffusion_core.data.online import cache_folder
from diffusion_core.data.sets import CLASS_NAMES, emoji_metadata, images
from diffusion_core.data.toys import toy, travellers

__all__ = ["CLASS_NAMES", "cache_folder", "emoji_metadata", "images", "toy", "travellers"]
