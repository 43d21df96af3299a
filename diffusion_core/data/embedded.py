"""The image sets that the package carries, in the folder `datasets`: 8,000 + 2,000 digits and garments, 1,386 emoji in two styles."""

import io
from pathlib import Path

import numpy as np

from diffusion_core import carried

DATASETS = Path(__file__).parent.parent / "datasets"
SHA256 = {
    "digits": "5b1566843095323836b0540b9a1221e7942799f8dd69ea23e2d45e1781e53c7b",
    "fashion": "d948fb1cf9c2679d208b8cfcfea45b53079391fe6d44e38a4259bd217bcb290c",
    "emoji": "0e8361a20620eeba9a5b428903a08fe834eb6014ff85dcd9c5c262039e23037c",
}


def pictures(name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of one split as bytes (N, C, H, W), and their labels (N,)."""
    arrays = fields(name, split, ("images", "labels"))
    pixels = arrays["images"]
    return pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, -1, 1), arrays["labels"]


def fields(name: str, split: str, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """These fields of one split of an embedded file, read after its SHA-256 was found right."""
    cure = f"install diffusion_core again, or rebuild the file: python scripts/build_datasets.py {name}"
    raw = carried.read(DATASETS / f"{name}.npz", SHA256[name], "data file", cure)
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        return {field: file[f"{split}_{field}"] for field in wanted}
