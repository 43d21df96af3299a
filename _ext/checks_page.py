"""The page "Every check of the book": one fold for each labeled result, with its statement, what its checks compare and print, and where it is in the code."""

import pathlib
from collections import Counter
from collections.abc import Iterable

import api_links
import notebook_results
import notebook_text
from notebook_results import Check, Result

FOLDED = 8  # more lines than these fold once more
CLAIMS = {
    "tolerance": "compare two numbers up to the tolerance that they print",
    "standard errors": "compare a Monte Carlo estimate, at a fixed seed, with the answer, within five standard errors",
    "below a bound": "state an inequality",
}


def docname(root: pathlib.Path, notebook: pathlib.Path) -> str:
    return notebook.relative_to(root).with_suffix("").as_posix()


def pages(root: pathlib.Path) -> list[pathlib.Path]:
    """The notebooks that have a labeled result, in the order of the book."""
    return [notebook for notebook in api_links.notebooks(root) if notebook_results.results(notebook)]


def checks_of(root: pathlib.Path, label: str) -> list[tuple[pathlib.Path, Check]]:
    """The checks of a result, those of its own notebook first."""
    found = [(notebook, check) for notebook in api_links.notebooks(root) for check in notebook_results.checks(notebook).get(label, [])]
    own = {notebook for notebook in pages(root) if label in {result.label for result in notebook_results.results(notebook)}}
    return sorted(found, key=lambda item: item[0] not in own)


def totals(root: pathlib.Path) -> str:
    """The paragraph at the top, every number counted."""
    results = [result for notebook in pages(root) for result in notebook_results.results(notebook)]
    chapters = sum(notebook in pages(root) for notebook in api_links.chapters(root).values())
    others = len(pages(root)) - chapters
    kinds = Counter(result.kind for result in results)
    lines = [line for notebook in api_links.notebooks(root) for cell in notebook_text.cells(notebook) for line in notebook_results.lines_of(cell.printed)]
    known = {result.label for result in results}
    labeled = [line for line in lines if known & set(notebook_results.LABEL.findall(line))]
    claims = notebook_results.kinds_of_claims(labeled)
    where = counted(chapters, "chapter") + (f" and on {counted(others, 'page')} beside them" if others else "")
    return (
        f"**{counted(len(results), 'labeled result')}** in {where}: {listed(counted(kinds[kind], kind) for kind in notebook_results.KINDS.values() if kinds[kind])}. "
        f"**{counted(len(labeled), 'line')} of checks** name them: {listed(f'{claims[kind]:,} {said}' for kind, said in CLAIMS.items() if claims[kind])}. "
        f"{len(lines) - len(labeled):,} more lines, in the chapters, check what has no label: the numbers of a table, a picture, the code."
    )


def counted(number: int, word: str) -> str:
    plural = word if number == 1 else word.removesuffix("y") + "ies" if word.endswith("y") else f"{word}s"
    return f"{number:,} {plural}"


def listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def sections(root: pathlib.Path) -> list[tuple[str, str]]:
    """(heading, its text) for each notebook with results."""
    return [(notebook_text.title(notebook), section(root, notebook)) for notebook in pages(root)]


def section(root: pathlib.Path, notebook: pathlib.Path) -> str:
    results = notebook_results.results(notebook)
    lines = sum(len(check.lines) for result in results for _, check in checks_of(root, result.label))
    head = f":::{{container}} quiet\n{{doc}}`To the page </{docname(root, notebook)}>`. {counted(len(results), 'result')}, {counted(lines, 'line')} of checks.\n:::"
    return "\n\n".join([head, *(row(root, notebook, result) for result in results)])


def row(root: pathlib.Path, notebook: pathlib.Path, result: Result) -> str:
    page = docname(root, notebook)
    checks = checks_of(root, result.label)
    lines = sum(len(check.lines) for _, check in checks)
    title = f"{result.title or f'`{result.label}`'} [{result.kind}, {counted(lines, 'line')}]{{.quiet}}"
    role = "eq" if result.kind == "equation" else "prf:ref"
    shown = f"Equation {{eq}}`{result.label}`" if role == "eq" else f"{{prf:ref}}`{result.label}`"
    where = f"{shown}, `{result.label}`; {{ref}}`its check in the text <lines-{result.label}>`"
    parts = [where, f":::{{container}} statement\n{notebook_text.moved(result.statement, page)}\n:::", *_checked(root, checks), *_in_code(notebook, result, page)]
    body = "\n\n".join(parts)
    return f"{':' * 8}{{dropdown}} {title}\n:name: row-{result.label}\n:class-container: result-row\n\n{body}\n{':' * 8}"


def _checked(root: pathlib.Path, checks: list[tuple[pathlib.Path, Check]]) -> list[str]:
    """For each cell what the chapter says of the check, unless it was said before, then the code and the lines."""
    parts, said = [], set()
    for notebook, check in checks:
        if check.words and check.words not in said:
            parts.append(f"::::{{container}} words\n{notebook_text.moved(check.words, docname(root, notebook))}\n::::")
            said.add(check.words)
        code = "\n".join(check.calls) if check.words and check.calls else check.source
        parts.append(f"~~~~~{{code-block}} python\n{code}\n~~~~~")
        lines = "~~~~~{code-block} text\n:class: check-lines\n" + "\n".join(check.lines) + "\n~~~~~"
        parts.append(lines if len(check.lines) <= FOLDED else f"::::{{dropdown}} {len(check.lines)} lines\n{lines}\n::::")
    return parts


def _in_code(notebook: pathlib.Path, result: Result, page: str) -> list[str]:
    found = []
    for column, paths in notebook_results.in_code(notebook, result.label):
        linked = api_links.CODE.sub(lambda code: f"{{py:obj}}`{code[1]} <diffusion_core.{paths[code[1]]}>`" if code[1] in paths else code[0], column)
        found.append(notebook_text.moved(linked, page))
    return [f"In the code: {'; '.join(found)}."] if found else []
