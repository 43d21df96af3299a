"""What importing the package loads: torch, numpy and the standard library, nothing that an extra brings, nothing that costs."""

import subprocess
import sys
from functools import cache

PROGRAM = """
import sys
import numpy, torch
before = set(sys.modules)
{body}
print("\\n".join(sorted(set(sys.modules) - before)))
"""
EVERY_MODULE = """
import importlib, pathlib
import diffusion_core
folder = pathlib.Path(diffusion_core.__file__).parent
for file in sorted(folder.rglob("*.py")):
    name = ".".join(file.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__")
    if not name.startswith("diffusion_core.plots") and not name.endswith(".__main__"):
        importlib.import_module(name)
"""


@cache
def loaded_by(body: str) -> set[str]:
    """The modules that a fresh process loads for `body`, beyond those of numpy and torch."""
    run = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def foreign(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] not in {*sys.stdlib_module_names, "diffusion_core", "numpy", "torch"}}


def test_importing_the_package_needs_torch_and_numpy_only():
    modules = loaded_by("import diffusion_core")
    assert {"diffusion_core", "diffusion_core.samplers", "diffusion_core.training"} <= modules
    assert not foreign(modules)


def test_importing_the_package_wakes_no_further_part_of_torch_or_numpy():
    """Torch loads many parts of itself when they are first used (`torch._dynamo` alone takes longer than all of ours)."""
    woken = {name for name in loaded_by("import diffusion_core") if name.partition(".")[0] in {"numpy", "torch"}}
    assert not woken


def test_the_figures_wait_until_they_are_asked_for():
    assert not {name for name in loaded_by("import diffusion_core") if name.startswith("diffusion_core.plots")}


def test_every_module_but_the_plots_loads_with_torch_and_numpy_alone():
    modules = loaded_by(EVERY_MODULE)
    assert {"diffusion_core.pretrained", "diffusion_core.metrics", "diffusion_core.shapes"} <= modules
    assert not foreign(modules)


def test_importing_the_package_warns_of_nothing():
    run = subprocess.run([sys.executable, "-W", "error", "-c", "import diffusion_core"], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
