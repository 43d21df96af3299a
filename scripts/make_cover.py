"""Write the README's picture, book/_static/cover.webp: the first animation that chapter 00 stores."""

import argparse
import base64
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "book/ground/00_start_here.ipynb"
COVER = ROOT / "book/_static/cover.webp"


def first_animation(notebook: pathlib.Path) -> bytes:
    """The bytes of the first animated WebP among the stored outputs; ValueError when there is none."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            found = re.search(r'class="moving[^>]*src="data:image/webp;base64,([^"]+)"', "".join(output.get("data", {}).get("text/html", "")))
            if found:
                return base64.b64decode(found.group(1))
    raise ValueError(f"{notebook} stores no animation; run it first: make execute NB={notebook.relative_to(ROOT)}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    COVER.write_bytes(first_animation(NOTEBOOK))
    print(f"{COVER.relative_to(ROOT)}: {COVER.stat().st_size:,} bytes")
