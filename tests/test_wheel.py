"""The package as others get it: built from a copy, installed where nothing but torch and numpy is, used from another folder, and seen by a type checker."""

import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser

import pytest
import yaml
from environments import Environment, closure

from diffusion_core import pretrained, travellers

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the environments are made of symbolic links")

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"

BARE = """
import importlib.metadata, json
import torch
import diffusion_core as dc

def error(call):
    try:
        call()
    except ImportError as error:
        return str(error)

def figures():
    from diffusion_core import plots

schedule, x = dc.LinearVP(), dc.toy("moons", 4)
digits, labels = dc.images("digits", "test")
print(json.dumps({
    "file": dc.__file__,
    "distributions": sorted(one.metadata["Name"].lower().replace("_", "-") for one in importlib.metadata.distributions()),
    "absent": [name for name in dc.__all__ if not hasattr(dc, name)],
    "digits": [*digits.shape, labels.bincount().tolist()],
    "toy": x.shape,
    "pretrained": error(lambda: dc.pretrained("digits")),
    "plots": error(figures),
    "fit": error(lambda: dc.fit(dc.Denoiser(dc.MLP(2), schedule, dc.targets.v), x, 1)),
    "likelihood": error(lambda: dc.ode_log_likelihood(dc.ring().denoiser(schedule), schedule, x, 0.1)),
}))
"""
SNIPPET_RESULT = "\nimport json; print(json.dumps([samples.shape, float(samples.norm(dim=1).median())]))"
FULL = """
import json
import torch
import diffusion_core as dc
from diffusion_core import plots

plots.use_style()
picture = plots.frame(plots.density_1d(lambda x: -x**2 / 2, -3, 3).figure)
net = dc.pretrained("digits")
schedule, moons = dc.LinearVP(), dc.toy("moons", 64, torch.Generator().manual_seed(0))
trained, losses = dc.fit(dc.Denoiser(dc.MLP(2, width=16, depth=1), schedule, dc.targets.v), moons, 3, progress=False)
print(json.dumps({
    "digits": net(dc.travellers(1, 28, 28), 1.0).double().sum().item(),
    "picture": picture.shape,
    "losses": losses.isfinite().tolist(),
    "likelihood": dc.ode_log_likelihood(dc.Gaussian([0.0, 0.0], 1.0).denoiser(schedule), schedule, torch.zeros(1, 2), 1e-3).log_prob.item(),
}))
"""
CONSUMER = """
import torch
from torch import Tensor

import diffusion_core
from diffusion_core import MLP, Denoiser, GaussianMixture, LinearVP, Schedule, ddim, fit, last, likelihood, losses, targets, uniform, vlb

schedule: Schedule = LinearVP()
mixture = GaussianMixture([[0.0, 1.0], [1.0, 0.0]], 0.1, [0.5, 0.5])
x: Tensor = last(ddim(mixture.denoiser(schedule), schedule, schedule.noise((4, 2)), uniform(5)))
denoiser, history = fit(Denoiser(MLP(2), schedule, targets.v), x, 3, weight=losses.min_snr(5.0))
bits: Tensor = vlb(denoiser, schedule, x, uniform(4), levels=None).bits_per_dim
pixels, labels = diffusion_core.images("digits")
pixels.shape, history.shape, labels.shape, likelihood.bits_per_dim(1.0, 2).shape

number: int = mixture.sample(3)  # type: ignore[assignment]
ddim(denoiser)  # type: ignore[call-arg]
LinearVP(beta_min="0.1")  # type: ignore[arg-type]
diffusion_core.nothing  # type: ignore[attr-defined]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The files that git knows, or would add, and nothing that a build left here."""
    folder = tmp_path_factory.mktemp("source")
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in set(names.split("\0")) - {""}:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return built("build_sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return built("build_wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def bare(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("bare"))
    environment.install(wheel)
    environment.link(closure(PROJECT["dependencies"]))
    return environment


@pytest.fixture(scope="module")
def report(bare: Environment, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return json.loads(bare.run(BARE, tmp_path_factory.mktemp("elsewhere")))


def built(what: str, source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """What setuptools makes of the source, without isolation and without the network."""
    run = subprocess.run([sys.executable, "-c", BUILD, what, str(target)], cwd=source, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return next(target.iterdir())


def contents(wheel: pathlib.Path) -> dict[str, str]:
    """The SHA-256 of each file."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def metadata(wheel: pathlib.Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode())


def test_the_wheel_holds_the_package_to_the_last_byte_and_nothing_else(source, wheel):
    info = f"diffusion_core-{PROJECT['version']}.dist-info/"
    files = [path for path in (source / "diffusion_core").rglob("*") if path.is_file()]
    expected = {path.relative_to(source).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert {"diffusion_core/py.typed", "diffusion_core/datasets/digits.npz", "diffusion_core/datasets/ATTRIBUTION.md", "diffusion_core/pretrained/digits.safetensors"} <= set(expected)
    packed = contents(wheel)
    assert {name: digest for name, digest in packed.items() if not name.startswith(info)} == expected
    assert {name.removeprefix(info) for name in packed if name.startswith(info)} == {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE", "top_level.txt"}
    assert packed[info + "licenses/LICENSE"] == hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()


def test_the_source_distribution_holds_what_the_wheel_is_built_from_and_no_part_of_the_book(sdist, wheel, tmp_path):
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    folder = next(tmp_path.iterdir())
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "diffusion_core", "diffusion_core.egg-info", "pyproject.toml", "setup.cfg"}
    (tmp_path / "wheel").mkdir()
    assert contents(built("build_wheel", folder, tmp_path / "wheel")) == contents(wheel)


def test_the_metadata_say_what_is_needed_and_who_may_use_it(wheel):
    said = metadata(wheel)
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert (said["Name"], said["Version"], said["Requires-Python"], said["License-Expression"]) == ("diffusion-core", version, ">=3.11", "MIT")
    assert sorted(re.match(r"[\w-]+", text)[0] for text in said.get_all("Requires-Dist") if "extra ==" not in text) == ["numpy", "torch"]
    assert said.get_all("Provides-Extra") == ["train", "evaluate", "plot", "book", "test"]
    assert said.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_the_environment_holds_torch_numpy_and_what_they_need(bare, report):
    assert report["distributions"] == sorted({*closure(["torch", "numpy"]), "diffusion-core"})
    assert report["file"] == str(bare.packages / "diffusion_core" / "__init__.py")


def test_the_package_works_with_torch_and_numpy_alone(report):
    assert report["absent"] == []
    assert report["digits"] == [2000, 1, 28, 28, [200] * 10]
    assert report["toy"] == [4, 2]


@pytest.mark.parametrize(
    ("what", "package", "extra"),
    [("pretrained", "safetensors", "train"), ("plots", "matplotlib", "plot"), ("fit", "accelerate", "train"), ("likelihood", "torchdiffeq", "evaluate")],
)
def test_what_needs_an_extra_names_it(report, what, package, extra):
    assert report[what].endswith(f' needs {package}: pip install "diffusion-core[{extra}]"')


def test_the_snippet_of_the_readme_runs_there(bare, wheel, tmp_path):
    snippet = re.search(r"```python\n(.*?)```", metadata(wheel).get_payload(), re.DOTALL)[1]
    shape, radius = json.loads(bare.run(snippet + SNIPPET_RESULT, tmp_path))
    assert shape == [1000, 2] and radius == pytest.approx(1.4, abs=0.03)


def test_the_extras_bring_what_they_promise(wheel, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("full"))
    environment.install(wheel)
    extras = [text for text in metadata(wheel).get_all("Requires-Dist") if "extra ==" in text]
    environment.link(closure(PROJECT["dependencies"]).union(*(closure(extras, extra) for extra in ("train", "evaluate", "plot"))))
    result = json.loads(environment.run(FULL, tmp_path_factory.mktemp("elsewhere")))
    assert result["digits"] == pytest.approx(pretrained("digits")(travellers(1, 28, 28), 1.0).double().sum().item(), rel=1e-4)
    assert result["picture"][2] == 3 and result["losses"] == [True] * 3
    assert result["likelihood"] == pytest.approx(-math.log(2 * math.pi), abs=1e-3)  # of N(0, I) in the plane, at its mode


def test_a_type_checker_sees_the_types_of_the_installed_package(bare, tmp_path):
    """Strictly, right uses pass and wrong ones do not: an ignore that hides nothing is an error too."""
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(bare.python), "consumer.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
