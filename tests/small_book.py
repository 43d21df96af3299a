"""A book of few pages, built with the book's own settings and extensions."""

import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent


def build(folder: pathlib.Path, pages: dict[str, str], builder: str = "html", repository: str = "") -> pathlib.Path:
    """Build `pages` in `folder` and return the folder of the result.

    pages: the path of each page in the book -> its text; the first is the root. repository: the address in the settings. What lies in the folder already
    stays. A warning of the build fails.
    """
    for name in ("_ext", "book/_static", "book/references.bib", "book/run_times.json", "scripts/page_weight.py"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists() and not target.exists():
            shutil.copy(source, target)
    for name, page in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page, encoding="utf-8")
    root, *others = (name.rsplit(".", 1)[0] for name in pages)
    toc = {"format": "jb-book", "root": root, "options": {"numbered": False}, "parts": [{"caption": "Pages", "chapters": [{"file": name} for name in others]}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    settings["repository"]["url"] = repository
    (folder / "_config.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(folder), "--all", "--quiet", "-W", "-n", "--keep-going", "--builder", builder]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "_build" / builder


def plain(folder: pathlib.Path, pages: dict[str, str], extensions: list[str]) -> pathlib.Path:
    """Build `pages` in `folder` by Sphinx alone, with few extensions and a bare theme; the first page is the root. A warning fails."""
    root = next(iter(pages)).rsplit(".", 1)[0]
    settings = {
        "extensions": extensions,
        "root_doc": root,
        "html_theme": "basic",
        "nb_execution_mode": "off",
        "myst_enable_extensions": ["colon_fence", "deflist", "dollarmath"],
        "exclude_patterns": ["out"],
    }
    for name, page in {**pages, "conf.py": "\n".join(f"{key} = {value!r}" for key, value in settings.items())}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(page, encoding="utf-8")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / '_ext')!r}); from sphinx.cmd.build import main; sys.exit(main(sys.argv[1:]))"]
    run = subprocess.run([*command, "-W", "-q", "-b", "html", str(folder), str(folder / "out")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "out"
