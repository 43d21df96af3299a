r"""Objects from text: `GeometricVE(sigma_max=50)` on a command line or in a file becomes a schedule, and nothing else can happen.

A text is a name out of a closed table, alone or called with literals and with other names of the table. It is parsed, never evaluated: a name that
the table lacks, an operator, an attribute are refused. Written out again it names every argument, so a file holds what was built, defaults included.
"""

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Words = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Phrase:
    """A word with all its arguments, literals or phrases: `str` writes it, `make` builds it. Two are equal when they build the same."""

    word: str
    arguments: dict[str, Any]
    builder: Callable[..., Any]

    def make(self) -> Any:
        """Build the object. Raises ValueError with the text in front when an argument cannot be meant."""
        arguments = {name: value.make() if isinstance(value, Phrase) else value for name, value in self.arguments.items()}
        try:
            return self.builder(**arguments)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{self}: {error}") from error

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={value if isinstance(value, Phrase) else repr(value)}" for name, value in self.arguments.items())
        return f"{self.word}({arguments})" if arguments else self.word


def phrase(text: str, words: Words, inside: Words | None = None, given: Mapping[str, Any] | None = None) -> Phrase:
    r"""The phrase that a text spells.

    >>> from diffusion_core import EDM, LinearVP
    >>> from diffusion_core.training.words import phrase
    >>> words = {"EDM": EDM, "LinearVP": LinearVP}
    >>> str(phrase("linear_vp", words)), str(phrase("EDM(50)", words))
    ('LinearVP(beta_min=0.1, beta_max=20.0)', 'EDM(sigma_max=50.0)')
    >>> phrase("EDM(50)", words).make()(0.5)[1].item()
    25.0

    text: a name, in any case and with or without underscores, or a call of one: `LinearVP`, `linear_vp`, `EDM(50)`, `Shifted(CosineVP(), shift=0.5)`.
    words: what a text may name, with what builds it. inside: what only an argument may name, besides.
    given: arguments that are filled in where a builder knows them and the text does not say them.
    Raises ValueError for a name that is not in the table, for anything but names, calls and literals, and for arguments that the builder does not take.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is neither a name nor a call such as {_example(words)}") from None
    return _phrase(tree, words, {**words, **(inside or {})}, given or {})


def _phrase(tree: ast.expr, words: Words, inside: Words, given: Mapping[str, Any]) -> Phrase:
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    if not isinstance(call.func, ast.Name):
        raise ValueError(f"{ast.unparse(tree)!r} is neither a name nor a call such as {_example(words)}")
    word = next((known for known in words if _plain(known) == _plain(call.func.id)), None)
    if word is None:
        raise ValueError(f"unknown name {call.func.id!r}: there are {', '.join(words)}")
    if any(isinstance(value, ast.Starred) for value in call.args) or any(keyword.arg is None for keyword in call.keywords):
        raise ValueError(f"{ast.unparse(tree)!r}: write the arguments one by one, without stars")
    signature = inspect.signature(words[word])
    positional = [_value(value, inside, given) for value in call.args]
    named = {str(keyword.arg): _value(keyword.value, inside, given) for keyword in call.keywords}
    if len(named) < len(call.keywords):
        raise ValueError(f"{ast.unparse(tree)!r} gives an argument twice")
    try:
        said = signature.bind_partial(*positional, **named).arguments
        filled = {name: value for name, value in given.items() if name in signature.parameters}
        bound = signature.bind(**{**filled, **said})
    except TypeError as error:
        raise ValueError(f"{ast.unparse(tree)!r}: {error}; expected {word}({', '.join(signature.parameters)})") from None
    bound.apply_defaults()
    arguments = {name: _like(value, signature.parameters[name].default) for name, value in bound.arguments.items()}
    return Phrase(word, arguments, words[word])


def _value(tree: ast.expr, inside: Words, given: Mapping[str, Any]) -> Any:
    if isinstance(tree, (ast.Name, ast.Call)):
        return _phrase(tree, inside, inside, given)
    try:
        value = ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{ast.unparse(tree)!r} is no number, text, list or name that is known here") from None
    return tuple(value) if isinstance(value, list) else value


def _like(value: Any, default: Any) -> Any:
    """50 where the builder's own value is 80.0 means 50.0, so that both spellings are one run."""
    return float(value) if isinstance(default, float) and type(value) is int else value


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _example(words: Words) -> str:
    first = next(iter(words))
    return f"{first} or {first}(...)"
