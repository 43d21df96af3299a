"""Virtual environments made offline: the package from its wheel, and of what is installed here only the distributions that are asked for, as links."""

import pathlib
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class Environment:
    """A fresh virtual environment without pip, in a folder of its own."""

    def __init__(self, folder: pathlib.Path):
        venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
        self.python = folder / "bin" / "python"
        self.packages = pathlib.Path(self.run("import sysconfig; print(sysconfig.get_path('purelib'))", folder).strip())

    def install(self, wheel: pathlib.Path) -> None:
        """As `pip install` does, without what the wheel requires."""
        subprocess.run([sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)

    def link(self, distributions: Iterable[str]) -> None:
        for name in distributions:
            for root in _roots(distribution(name)):
                place = self.packages / root
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to(pathlib.Path(distribution(name).locate_file(root)).resolve())

    def run(self, program: str, folder: pathlib.Path) -> str:
        """The standard output of a program, run in `folder`, isolated from the caller's paths."""
        run = subprocess.run([str(self.python), "-I", "-c", program], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout


def closure(requirements: Iterable[str], extra: str = "") -> set[str]:
    """The names of the installed distributions that these requirements ask for, and those that they ask for in turn."""
    todo = [(Requirement(text), extra) for text in requirements]
    found: set[tuple[str, str]] = set()
    while todo:
        requirement, wanted = todo.pop()
        if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
            new = {(str(canonicalize_name(requirement.name)), one) for one in {"", *requirement.extras}} - found
            found |= new
            todo += [(Requirement(text), one) for name, one in new for text in distribution(name).requires or []]
    return {name for name, _ in found}


def _roots(one: Distribution) -> set[pathlib.PurePath]:
    """What to link of a distribution: its packages whole, and the files that lie in none; scripts stay behind."""
    files = [pathlib.PurePath(*file.parts) for file in one.files or [] if ".." not in file.parts and "__pycache__" not in file.parts]
    base = pathlib.Path(one.locate_file(""))
    whole = {folder for folder in {folder for file in files for folder in file.parents if folder.parts} if folder.suffix == ".dist-info" or (base / folder / "__init__.py").exists()}
    return {next((folder for folder in reversed(file.parents) if folder in whole), file) for file in files}
