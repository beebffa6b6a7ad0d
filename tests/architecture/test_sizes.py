"""The numbers of the house: what is small can be read, and what can be read can be trusted.

Lines of code are lines without docstrings, comments and blanks.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "vram_residency"
MODULES = sorted(SOURCE.rglob("*.py"))

FUNCTION_LINES_MAX = 40
MODULE_LINES_MAX = 400
NESTING_MAX = 3
POSITIONAL_MAX = 4
FORBIDDEN_NAMES = {"utils", "util", "common", "misc", "managers"}
#: Signatures that users' programs already call (docs/adr/0004-given-signatures.md).
GIVEN_SIGNATURES = {
    "emit_seal_verification_failed",
    "emit_vram_allocated",
    "emit_vram_allocation_failed",
    "emit_vram_deallocated",
    "emit_policy_violation",
}

_NOISE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)


def code_lines(text: str, tree: ast.AST) -> set[int]:
    """The numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NOISE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for docstring in docstrings(tree):
        lines.difference_update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def docstrings(tree: ast.AST) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks stand in each other inside a function; an ``elif`` is no deeper than its ``if``."""
    deepest = depth
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, _FUNCTIONS):
                continue
            is_elif = isinstance(node, ast.If) and field == "orelse" and isinstance(child, ast.If)
            step = isinstance(child, _BLOCKS) and not is_elif
            deepest = max(deepest, nesting(child, depth + step))
    return deepest


def positional_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Arguments that may be given by position, less ``self`` or ``cls``."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_keeps_to_the_numbers(path: Path) -> None:
    """No module over 400 lines, no function over 40, nesting at most 3, at most 4 positional arguments."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    lines = code_lines(text, tree)
    too_much = [] if len(lines) <= MODULE_LINES_MAX else [f"{path.name}: {len(lines)} lines of code"]
    for function in functions(tree):
        where = f"{path.name}:{function.lineno} {function.name}"
        length = len(lines.intersection(range(function.lineno, (function.end_lineno or 0) + 1)))
        too_much += [f"{where}: {length} lines of code"] * (length > FUNCTION_LINES_MAX)
        too_much += [f"{where}: nesting {nesting(function)}"] * (nesting(function) > NESTING_MAX)
        count = positional_count(function)
        too_much += [f"{where}: {count} positional arguments"] * (
            count > POSITIONAL_MAX and function.name not in GIVEN_SIGNATURES
        )
    assert too_much == []


def test_no_module_is_a_drawer() -> None:
    """Modules are nouns; nothing is called utils or the like."""
    names = {part for path in MODULES for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert names.isdisjoint(FORBIDDEN_NAMES)


def test_the_measures_measure() -> None:
    """The measuring itself, on a function whose numbers are known."""
    text = '''
def example(a, b, *, c):
    """A docstring
    of two lines."""
    # a comment

    if a:
        for x in b:
            print(x)
    elif c:
        print(c)
'''
    tree = ast.parse(text)
    function = next(functions(tree))
    assert len(code_lines(text, tree)) == 6
    assert nesting(function) == 2
    assert positional_count(function) == 2
