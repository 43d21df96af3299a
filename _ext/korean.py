"""A Sphinx extension for the glossary in two languages: Korean words are marked as Korean, and an index leads from them to the English entries.

{ko}`확산 모델` gives a word its language, so that a screen reader pronounces it and the style sheet gives it a Korean font. `{korean-index}` lists the
Korean words of every `{glossary}` entry of its page in the order of a Korean dictionary, in groups by the first consonant, each a link to its entry.
"""

import pathlib
import re
from dataclasses import dataclass
from typing import Any

from docutils import nodes
from made_pages import inside
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

KOREAN = re.compile(r"\{ko\}`([^`]+)`")
GLOSSARY = re.compile(r"^```\{glossary\}\n(?::\w+:[^\n]*\n)*\n?(.*?)^```$", re.MULTILINE | re.DOTALL)
INITIALS = "ㄱㄱㄴㄷㄷㄹㅁㅂㅂㅅㅅㅇㅈㅈㅊㅋㅌㅍㅎ"  # of the syllables from 가 on, 588 for each; a doubled consonant stands with the single one
FIRST_SYLLABLE, LAST_SYLLABLE, SYLLABLES_AN_INITIAL = 0xAC00, 0xD7A3, 588
LATIN = "A–Z"


@dataclass(frozen=True)
class Term:
    english: str
    korean: tuple[str, ...]
    text: str


def terms(source: str) -> list[Term]:
    """The entries of the glossaries in a page's Markdown."""
    found = []
    for glossary in GLOSSARY.findall(source):
        for english, text in re.findall(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n|\n(?=[ \t]))+)", glossary, re.MULTILINE):
            found.append(Term(english.strip(), tuple(KOREAN.findall(text)), text.strip()))
    return found


def initial(word: str) -> str:
    """The consonant under which a Korean dictionary has the word: ㄱ for 가능도; words that begin with a Latin letter stand together."""
    code = ord(word[0])
    return INITIALS[(code - FIRST_SYLLABLE) // SYLLABLES_AN_INITIAL] if FIRST_SYLLABLE <= code <= LAST_SYLLABLE else LATIN


def index(entries: list[Term]) -> dict[str, list[tuple[str, str]]]:
    """{initial: [(Korean word, English entry)]}. Precomposed syllables are numbered in the order of the dictionary."""
    pairs = sorted((korean.replace(" ", ""), korean, entry.english) for entry in entries for korean in entry.korean)
    groups: dict[str, list[tuple[str, str]]] = {letter: [] for letter in [*dict.fromkeys(INITIALS), LATIN]}
    for _, korean, english in pairs:
        groups[initial(korean)].append((korean, english))
    return {letter: words for letter, words in groups.items() if words}


class Korean(SphinxRole):
    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        return [nodes.inline(self.rawtext, self.text, classes=["language-ko"])], []  # docutils turns this class into lang="ko"


class KoreanIndex(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        source = pathlib.Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        groups = index(terms(source))
        lines = []
        for letter, words in groups.items():
            lines += [f"**{{ko}}`{letter}`**" if letter != LATIN else f"**{LATIN}**", ""]
            lines += [f"- {{ko}}`{korean}` {{term}}`{english}`" for korean, english in words] + [""]
        return [inside(self, "\n".join(lines), ["korean-index"])]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("ko", Korean())
    app.add_directive("korean-index", KoreanIndex)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
