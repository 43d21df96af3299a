"""What is public in `diffusion_core`, where it is defined, and how it is called: read from each room's `__all__` and from the source.

A *room* is a module or package directly under `diffusion_core` that has an `__all__`. A public name is reached by the shortest import: `ddim` for
`from diffusion_core import ddim`, `losses.snr` for what only the room hands out.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import itertools
import pathlib
import pkgutil
import types
from collections.abc import Iterator
from dataclasses import dataclass

import diffusion_core

PACKAGE = pathlib.Path(diffusion_core.__file__).parent


@dataclass(frozen=True)
class Entry:
    """One public name: `path` as a reader imports it below `diffusion_core`, the room that lists it, the module whose source defines it."""

    path: str
    name: str
    room: str
    module: str
    value: object

    @property
    def is_constant(self) -> bool:
        """A number, a color, a table, a short name for a type: something without a docstring of its own."""
        return not (isinstance(self.value, type) or inspect.isroutine(self.value))


@functools.cache
def rooms() -> tuple[str, ...]:
    """The rooms, as `samplers`, in alphabetical order."""
    found = (info.name for info in pkgutil.iter_modules(diffusion_core.__path__))
    return tuple(sorted(room for room in found if hasattr(module_of(room), "__all__")))


def module_of(name: str) -> types.ModuleType:
    return importlib.import_module(f"diffusion_core.{name}")


@functools.cache
def entries(room: str, first: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """The public names of a room in the order of its source: file by file as the room imports them, top to bottom. What `first` lists, names and files,
    comes before the rest."""
    module = module_of(room)
    listed = []
    for name in module.__all__:
        value = getattr(module, name)
        home = _home(room, name, value)
        shared = name in diffusion_core.__all__ and getattr(diffusion_core, name) is value
        listed.append(Entry(name if shared else f"{room}.{name}", name, room, home, value))
    order = (*first, *(module.removeprefix(f"{room}.") for module in _import_order(room)))

    def place(entry: Entry) -> tuple[int, int]:
        file = entry.module.removeprefix(f"{room}.")
        return order.index(entry.name if entry.name in first else file), node_of(entry.module, entry.name).lineno

    return tuple(sorted(listed, key=place))


@functools.cache
def all_entries() -> tuple[Entry, ...]:
    return tuple(entry for room in rooms() for entry in entries(room))


@functools.cache
def by_path() -> dict[str, Entry]:
    return {entry.path: entry for entry in all_entries()}


def _home(room: str, name: str, value: object) -> str:
    """The module below `diffusion_core` whose top level defines the name."""
    written = getattr(value, "__module__", None)
    if isinstance(written, str) and written.startswith("diffusion_core.") and hasattr(value, "__qualname__"):
        return written.removeprefix("diffusion_core.")
    for module in _import_order(room):
        if name in definitions(module):
            return module
    raise ValueError(f"diffusion_core.{room} lists {name!r} in __all__, and no module that it imports from defines that at its top level")


@functools.cache
def _import_order(room: str) -> tuple[str, ...]:
    """The room's own file, then the modules of the package that it imports from, in that order, then what those import from."""
    order = [room]
    for module in order:
        order += [found for found in imported_modules(module) if found not in order]
    return tuple(order)


@functools.cache
def source_of(module: str) -> tuple[str, ast.Module]:
    path = pathlib.Path(str(module_of(module).__file__))
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def _top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, those inside of `with`, `if` and `try` among them."""
    for node in tree.body:
        inside = isinstance(node, (ast.With, ast.If, ast.Try))
        yield from (item for item in ast.walk(node) if isinstance(item, ast.stmt)) if inside else [node]


@functools.cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """The functions, classes and assigned names at the top level of a module."""
    found: dict[str, ast.stmt] = {}
    for node in _top_level(source_of(module)[1]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                found |= {name.id: node for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def node_of(module: str, name: str) -> ast.stmt:
    return definitions(module)[name]


@functools.cache
def imported_modules(module: str) -> tuple[str, ...]:
    """The modules below `diffusion_core` that a module imports at its top level, in the order of its lines."""
    here = module_of(module)
    found = []
    for node in _top_level(source_of(module)[1]):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), here.__package__) if node.level else str(node.module)
        if base == "diffusion_core":
            found += [alias.name for alias in node.names if inspect.ismodule(getattr(diffusion_core, alias.name))]
        elif base.startswith("diffusion_core."):
            found.append(base.removeprefix("diffusion_core."))
    return tuple(dict.fromkeys(found))


def stands_on(room: str) -> tuple[str, ...]:
    """The other rooms that the files of a room import at their top level, in alphabetical order."""
    files = [room, *(f"{room}.{info.name}" for info in pkgutil.iter_modules(getattr(module_of(room), "__path__", [])) if not info.name.startswith("_"))]
    used = {module.split(".")[0] for file in files for module in imported_modules(file)}
    return tuple(sorted(used & set(rooms()) - {room}))


def source(entry: Entry) -> str:
    """The lines that define the name, decorators included; of its docstring, which the page shows, the first paragraph."""
    node = node_of(entry.module, entry.name)
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = source_of(entry.module)[0].splitlines()
    if not (isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node)):
        return "\n".join(lines[first - 1 : node.end_lineno])
    doc = node.body[0]
    kept = list(itertools.takewhile(str.strip, lines[doc.lineno - 1 : doc.end_lineno]))
    if len(kept) < doc.end_lineno - doc.lineno + 1:
        kept[-1] += '"""'
    return "\n".join([*lines[first - 1 : doc.lineno - 1], *kept, *lines[doc.end_lineno : node.end_lineno]])


def signature(entry: Entry) -> str:
    """`(x: Tensor, n: int = 1) -> Tensor`, as the source writes it; for a class what its constructor takes."""
    node = node_of(entry.module, entry.name)
    if isinstance(node, ast.FunctionDef):
        return _arguments(entry.module, node, skip=0, returns=True)
    if isinstance(node, ast.ClassDef):
        return _constructor(entry.value)  # type: ignore[arg-type]
    return ""


def _constructor(cls: type) -> str:
    """The arguments of `__init__`, or the fields, inherited ones first, where a dataclass or a named tuple has written none."""
    fields: list[str] = []
    for base in cls.__mro__:
        module = base.__module__.removeprefix("diffusion_core.")
        node = definitions(module).get(base.__name__) if base.__module__.startswith("diffusion_core.") else None
        if not isinstance(node, ast.ClassDef):
            break
        for item in node.body:
            if isinstance(item, ast.FunctionDef) and item.name == "__init__":
                return _arguments(module, item, skip=1, returns=False)
        fields = [_segment(module, item) for item in node.body if isinstance(item, ast.AnnAssign)] + fields
    has_fields = hasattr(cls, "__dataclass_fields__") or hasattr(cls, "_fields")
    return f"({', '.join(fields)})" if has_fields else ""


def _segment(module: str, node: ast.AST) -> str:
    return " ".join((ast.get_source_segment(source_of(module)[0], node) or "").split())


def _arguments(module: str, function: ast.FunctionDef, skip: int, returns: bool) -> str:
    args = function.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    parts = [_argument(module, arg, default) for arg, default in zip(positional, defaults)][skip:]
    if args.vararg:
        parts.append("*" + _argument(module, args.vararg, None))
    elif args.kwonlyargs:
        parts.append("*")
    parts += [_argument(module, arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg:
        parts.append("**" + _argument(module, args.kwarg, None))
    result = f" -> {_segment(module, function.returns)}" if returns and function.returns else ""
    return f"({', '.join(parts)}){result}"


def _argument(module: str, arg: ast.arg, default: ast.expr | None) -> str:
    named = _segment(module, arg)
    if default is None:
        return named
    return f"{named} = {_segment(module, default)}" if arg.annotation else f"{named}={_segment(module, default)}"


@dataclass(frozen=True)
class Method:
    """A public method or property that a class itself defines and documents."""

    name: str
    signature: str
    doc: str
    is_property: bool


def methods(entry: Entry) -> Iterator[Method]:
    node = node_of(entry.module, entry.name)
    if not isinstance(node, ast.ClassDef):
        return
    for item in node.body:
        if not isinstance(item, ast.FunctionDef) or (item.name.startswith("_") and item.name != "__call__"):
            continue
        doc = ast.get_docstring(item)
        if not doc:
            continue
        decorators = {getattr(decorator, "id", "") for decorator in item.decorator_list}
        skip = 0 if "staticmethod" in decorators else 1
        yield Method(item.name, _arguments(entry.module, item, skip, returns=True), doc, "property" in decorators)


def parameters(entry: Entry) -> frozenset[str]:
    """The names that a docstring may explain: arguments, fields of a dataclass or a named tuple."""
    node = node_of(entry.module, entry.name)
    functions = [node] if isinstance(node, ast.FunctionDef) else []
    names: set[str] = set()
    if isinstance(node, ast.ClassDef):
        functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
        names = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
        names |= {word.split(":")[0].strip(" *") for word in _constructor(entry.value)[1:-1].split(",")}  # type: ignore[arg-type]
    for function in functions:
        args = function.args
        names |= {arg.arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, [args.vararg, args.kwarg])]}
    return frozenset(names - {"self", ""})


def type_names(room: str) -> dict[str, str]:
    """The short names that a room's files give to types, such as `Denoise = Callable[..., Tensor]`, with what they stand for."""
    found: dict[str, str] = {}
    for module in _import_order(room):
        for name, node in definitions(module).items():
            if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Subscript, ast.BinOp)) and name[0].isupper() and not name.isupper():
                found.setdefault(name, _segment(module, node.value))
    return found
