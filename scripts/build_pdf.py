"""Write the whole book as a PDF: LaTeX by Sphinx, drawings by rsvg-convert, pages by xelatex (latexmk runs it as often as it takes).

Everything that is missing on this machine is named first, with the Debian packages that bring it. Afterwards the log is read: a reference that leads
nowhere, a letter that its font lacks and a line that is cut off at the margin are faults. Exit status 0 when the PDF is there and has none.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAME = "diffusion-from-first-principles"
CUT_OFF = 20.0  # points that a line may stick out; the margin is wider
SETTINGS = {"max_print_line": "10000", "LATEXOPTS": "", "XINDYOPTS": "-L english -C utf8 -M sphinx.xdy"}  # whole lines in the log; what Sphinx's own Makefile sets
PROGRAMS = {"latexmk": "latexmk", "xelatex": "texlive-xetex", "xindy": "xindy", "rsvg-convert": "librsvg2-bin"}
FILES = {
    "fncychap.sty": "texlive-latex-extra",
    "newunicodechar.sty": "texlive-latex-extra",
    "pgfplots.sty": "texlive-pictures",
    "lmodern.sty": "lmodern",
    "texgyrepagella-regular.otf": "fonts-texgyre",
    "texgyrepagella-math.otf": "fonts-texgyre-math",
}
FONTS = {"DejaVu Sans Mono": "fonts-dejavu-core", "NanumMyeongjo": "fonts-nanum"}


def missing() -> dict[str, str]:
    """What the PDF needs and this machine lacks, each with the Debian package that brings it."""
    lacking = {program: package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    for name, package in FILES.items():
        if shutil.which("kpsewhich") is None or not output_of("kpsewhich", name):
            lacking[name] = package
    for font, package in FONTS.items():
        if shutil.which("fc-match") is None or font not in output_of("fc-match", "-f", "%{family}", font):
            lacking[f"the font {font}"] = package
    return lacking


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def faults(log: str) -> list[str]:
    """What is wrong with the pages, by the log of the last run, one line each."""
    found = [f"error: {error}" for error in re.findall(r"^(?:! |\S+\.tex:\d+: )(.*)$", log, re.M)]
    found += [f"reference to nowhere: {label}" for label in re.findall(r"(?:Reference|Citation|Hyper reference) `(.*?)'.*? undefined", log)]
    found += [f"no letter {letter} in the font {font}" for letter, font in sorted(set(re.findall(r"Missing character: There is no (\S+).*? in font ([^:!;]*)", log)))]
    for points, place in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\) (.*)", log):
        if float(points) > CUT_OFF:
            found.append(f"{points} points too wide: {place}")
    return found


def run(command: list[str], folder: pathlib.Path, log: pathlib.Path) -> int:
    """Run a command with its output in a file. TeX breaks no line of its log, so that it can be read."""
    with log.open("w", encoding="utf-8") as file:
        return subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **SETTINGS}).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=ROOT, help="the folder whose _build gets the files (default: the repository)")
    args = parser.parse_args()
    if lacking := missing():
        print("The PDF needs what is not here:", *(f"  {name} ({package})" for name, package in lacking.items()), sep="\n", file=sys.stderr)
        print(f"On Debian and Ubuntu:\n  apt-get install --no-install-recommends {' '.join(sorted(set(lacking.values())))}", file=sys.stderr)
        return 1
    folder = args.output.resolve() / "_build/latex"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print("Writing LaTeX (a minute)", flush=True)
    book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(ROOT), "--all", "--builder", "latex", "--path-output", str(args.output.resolve())]
    if run(book, ROOT, folder.parent / "latex.log") or not (folder / f"{NAME}.tex").exists():
        print(f"Sphinx failed; its log is {folder.parent / 'latex.log'}", file=sys.stderr)
        return 1
    for drawing in folder.glob("*.svg"):
        subprocess.run(["rsvg-convert", "--format=pdf", f"--output={drawing.with_suffix('.pdf')}", str(drawing)], check=True)
    print("Setting the pages (some minutes)", flush=True)
    status = run(["latexmk", "-pdfxe", "-interaction=nonstopmode", "-file-line-error", f"{NAME}.tex"], folder, folder / "latexmk.log")
    log = folder / f"{NAME}.log"
    said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    found = faults(said) if said else [f"xelatex did not start; see {folder / 'latexmk.log'}"]
    print("\n".join(found))
    pdf = folder / f"{NAME}.pdf"
    if not pdf.exists():
        print(f"No PDF; the log is {log}", file=sys.stderr)
        return 1
    shutil.copy(pdf, folder.parent)
    pages = re.search(r"Output written on .*?\((\d+) pages", said)
    print(f"{folder.parent / pdf.name}: {pages[1] if pages else '?'} pages, {pdf.stat().st_size / 1e6:.1f} MB, {len(found)} faults")
    return int(bool(found or status))


if __name__ == "__main__":
    sys.exit(main())
