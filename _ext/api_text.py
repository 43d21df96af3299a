"""A docstring as MyST Markdown: formulas, code and lists stay, arguments become a list, examples code, "chapter 06" and names in backticks links."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Collection

Link = Callable[[str], str | None]

KEPT = re.compile(r"(`[^`]+`|\$\$[^$]+\$\$|\$[^$]+\$)")  # what is code or a formula: nothing in it is touched
CHAPTERS = re.compile(r"\b[Cc]hapters? \d\d(?:(?:,| and| to|-) ?(?:and )?\d\d|(?: \([^)]*\)))*")
STARS = re.compile(r"(\*\*[^\s*](?:[^*]*[^\s*])?\*\*)|\*+")  # bold text, or the stars of a shape (B, *D)
COMMENT, COLUMN = re.compile(r"(>>> .*?\S)  # (.+)"), 84
RESULT = re.compile(r"(?<=[.)])\s+(?=(?:Raises|Returns|Yields|Errors)\b)")  # where the last argument's explanation ends
TABLE, LIST = re.compile(r"\|.*\|$"), re.compile(r"(?:[-*]|\d+\.) ")


def as_myst(docstring: str, parameters: Collection[str] = (), chapter: Link = lambda number: None, name: Link = lambda text: None) -> str:
    """The docstring as MyST.

    parameters: the names whose explanations, `name: what it is`, become a list. chapter: "06" -> the page of that chapter, or None. name: the text of
    inline code -> the path of the public name that it is, or None.
    """
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring))
    return "\n\n".join(_block(block, parameters, chapter, name) for block in blocks)


def _block(block: str, parameters: Collection[str], chapter: Link, name: Link) -> str:
    lines = block.splitlines()
    if lines[0].lstrip().startswith(">>>"):
        return fenced("pycon", "\n".join(_narrow(line) for line in textwrap.dedent(block).splitlines()))
    if all(line.startswith("    ") for line in lines):
        return fenced(_language(textwrap.dedent(block)), textwrap.dedent(block))
    if TABLE.match(lines[0]):
        return "\n".join(_inline(line, chapter, name) for line in lines)
    return _items(_inline("\n".join(lines), chapter, name), parameters)


def _narrow(line: str) -> str:
    """A line of an example that is wider than the column has its comment above it."""
    found = COMMENT.fullmatch(line)
    return f">>> # {found[2]}\n{found[1]}" if found and len(line) > COLUMN else line


def _language(block: str) -> str:
    try:
        ast.parse(block)
    except SyntaxError:  # a sketch, `x -> patches -> head`
        return "text"
    return "python"


def fenced(language: str, code: str) -> str:
    return f"~~~~~{{code-block}} {language}\n{code}\n~~~~~"


def _inline(text: str, chapter: Link, name: Link) -> str:
    """Outside of code and formulas, stars are stars and no line begins a quotation or a list by accident; names and chapters become links."""
    parts = KEPT.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            part = STARS.sub(lambda found: found[0] if found[1] else r"\*" * len(found[0]), part)
            part = re.sub(r"(?m)^(\s*)([>+=])", r"\1\\\2", part)
            parts[i] = CHAPTERS.sub(lambda run: _chapter_links(run[0], chapter), part)
        elif part.startswith("`") and (path := name(part.strip("`"))):
            parts[i] = f"{{py:obj}}`{part.strip('`')} <diffusion_core.{path}>`"
    return "".join(parts)


def _chapter_links(run: str, chapter: Link) -> str:
    def linked(found: re.Match[str]) -> str:
        page = chapter(found[0])
        return f"{{doc}}`{found[0]} </{page}>`" if page else found[0]

    return re.sub(r"\b\d\d\b", linked, run)


def _items(text: str, parameters: Collection[str]) -> str:
    """`x: (B, *D). t: scalar.` as a list with one argument an item, where a paragraph explains arguments."""
    if not parameters or LIST.match(text):
        return text
    one = "|".join(re.escape(parameter) for parameter in sorted(parameters, key=len, reverse=True))
    begin = re.compile(rf"(?:(?<=\A)|(?<=\n)|(?<=[.;)] ))((?:{one})(?:(?:, | and )(?:{one}))*): ")
    places = list(begin.finditer(text))
    if not places:
        return text
    ends = [place.start() for place in places[1:]] + [len(text)]
    items = [(place[1], text[place.end() : end].strip()) for place, end in zip(places, ends)]
    names, last = items[-1]
    last, *after = RESULT.split(last, maxsplit=1)
    listed = [f"- {', '.join(f'`{word}`' for word in re.split(', | and ', names))}: " + what.replace("\n", "\n  ") for names, what in [*items[:-1], (names, last)]]
    return "\n\n".join(filter(None, [text[: places[0].start()].strip(), "\n".join(listed), *after]))
