"""Mutants that cosmic-ray does not make and people do: one name of a formula in place of its sibling, alpha for sigma, exp for expm1.

Operators in cosmic-ray's form, for `scripts/mutate.py`: "swap/SwapName_alpha_sigma" puts sigma where alpha is read, at one place where both are known.
"""

from collections.abc import Iterator

from parso.python.tree import Name
from parso.tree import BaseNode, NodeOrLeaf, search_ancestor

NAMES = (
    ("alpha", "sigma"), ("d_alpha", "d_sigma"), ("a", "b"), ("a_s", "a_t"), ("s_s", "s_t"), ("s", "t"), ("u", "v"), ("x", "x0"), ("x", "x_t"), ("x", "image"),
    ("y", "y_hat"), ("mean_p", "mean_q"), ("var_p", "var_q"), ("sigma_min", "sigma_max"), ("start", "end"), ("low", "high"), ("lo", "hi"), ("first", "last"),
    ("before", "after"), ("order", "corrector"), ("gain", "keep"), ("c_0", "c_x"), ("per_snr", "per_one"), ("m", "n"), ("sin", "cos"), ("min", "max"),
)
AFTER_A_DOT = (
    ("_alpha", "_sigma"), ("_sigma", "_sigma2"), ("beta_min", "beta_max"), ("sigma_min", "sigma_max"), ("start", "end"), ("lowest", "highest"),
    ("exp", "expm1"), ("log", "log1p"), ("min", "max"), ("mean", "sum"), ("sin", "cos"), ("ones_like", "zeros_like"), ("drift", "diffusion2"),
)
_BOTH_WAYS = {dotted: {pair[::way] for pair in pairs for way in (1, -1)} for dotted, pairs in ((False, NAMES), (True, AFTER_A_DOT))}


def _is_read(name: Name) -> bool:
    """Where a name stands for a value: not where it is defined, and not where it only labels an argument."""
    following = name.get_next_leaf()
    labels = name.parent.type in ("argument", "param") and following is not None and following.value in ("=", ":")
    return not name.is_definition(include_setitem=True) and not labels and name.parent.type not in ("param", "import_from", "import_name", "dotted_name")


def _is_defined(new: str, name: Name) -> bool:
    """Whether a function around this name defines the other."""
    scope = search_ancestor(name, "funcdef", "lambdef")
    while scope is not None:
        if any(leaf.value == new and leaf.is_definition() for leaf in _names(scope)):
            return True
        scope = search_ancestor(scope, "funcdef", "lambdef")
    return False


def _names(node: NodeOrLeaf) -> Iterator[Name]:
    for child in node.children if isinstance(node, BaseNode) else ():
        if isinstance(child, Name):
            yield child
        yield from _names(child)


def _swap(old: str, new: str) -> type:
    class SwapName:
        @staticmethod
        def arguments():
            return ()

        def mutation_positions(self, node):
            if isinstance(node, Name) and node.value == old and _is_read(node):
                before = node.get_previous_leaf()
                after_a_dot = before is not None and before.value == "."
                if (old, new) in _BOTH_WAYS[after_a_dot] and (after_a_dot or _is_defined(new, node)):
                    yield node.start_pos, node.end_pos

        def mutate(self, node, index):
            node.value = new
            return node

    return SwapName


class Swaps:
    """cosmic-ray's provider of these operators, "swap"."""

    _operators = {f"SwapName_{old}_{new}": _swap(old, new) for old, new in sorted(_BOTH_WAYS[False] | _BOTH_WAYS[True])}

    def __iter__(self):
        return iter(self._operators)

    def __getitem__(self, name):
        return self._operators[name]
