"""Every small defect that could be in a module: a condition turned round, a call left out, a word that is missing."""

from __future__ import annotations

import ast
import copy
import difflib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional, Union

_OPPOSITES: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
}
_OPERATORS: dict[type[ast.operator], ast.operator] = {
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.FloorDiv(),
    ast.BitAnd: ast.BitOr(),
    ast.BitOr: ast.BitAnd(),
}
_SWAPPED_NAMES = {"any": "all", "all": "any", "min": "max", "max": "min"}
_NORMALIZING_METHODS = ("lower", "strip")
_TO_BE_ENCLOSED = (ast.BoolOp, ast.Compare, ast.BinOp, ast.IfExp, ast.UnaryOp)


@dataclass(frozen=True)
class Mutant:
    """A module with one defect, at the line `line`; `name` is the same however the lines around it change."""

    name: str
    line: int
    source: str

    def diff(self, original: str, path: str) -> str:
        """What differs from the module without the defect."""
        lines = original.splitlines(), self.source.splitlines()
        return "\n".join(difflib.unified_diff(*lines, path, path, lineterm="", n=1))


@dataclass(frozen=True)
class _Change:
    """Text in the place of what is between the first node's begin and the last one's end."""

    first: ast.AST
    last: ast.AST
    text: str


def mutants(source: str, functions: Sequence[str] = ()) -> list[Mutant]:
    """All mutants of a module, or of some of its functions."""
    found: list[Mutant] = []
    names: Counter[str] = Counter()
    for function, change in _in_body(ast.parse(source), ""):
        if functions and function not in functions:
            continue
        start, end = _span(source, change)
        encoded = source.encode()
        before = " ".join(encoded[start:end].decode().split())
        name = f"{function or 'module'}: {before} -> {change.text}"
        names[name] += 1
        text = (encoded[:start] + change.text.encode() + encoded[end:]).decode()
        number = f" #{names[name]}" if names[name] > 1 else ""
        found.append(Mutant(name + number, change.first.lineno, text))  # type: ignore[attr-defined]
    return found


def _span(source: str, change: _Change) -> tuple[int, int]:
    """The bytes that a change replaces: ast counts columns in them."""
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    start = offsets[change.first.lineno - 1] + change.first.col_offset  # type: ignore[attr-defined]
    end = offsets[change.last.end_lineno - 1] + change.last.end_col_offset  # type: ignore[attr-defined]
    return start, end


def _in_body(node: ast.AST, function: str, in_error: bool = False) -> Iterator[tuple[str, _Change]]:
    """The changes of a node and of all below it, each with the dotted name of its function."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        function = f"{function}.{node.name}".lstrip(".")
    in_error = in_error or isinstance(node, ast.Raise)
    for change in _changes(node, in_error):
        yield function, change
    if isinstance(node, ast.JoinedStr):
        return  # before Python 3.12 what is in it does not say where it is
    for below in _below(node):
        yield from _in_body(below, function, in_error)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below that say what is done: no annotations, documentation, imports for types, words for the log."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or (name == "args" and _is_log(node)):
            continue
        if isinstance(node, ast.Assign) and name == "value" and isinstance(node.targets[0], ast.Tuple):
            # Of several values that are given names none can be missing.
            value = getattr(value, "elts", value)
        for child in value if isinstance(value, list) else [value]:
            is_documentation = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            if isinstance(child, ast.AST) and not is_documentation and not is_for_types:
                yield child


def _is_log(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log.")


def _changes(node: ast.AST, in_error: bool) -> Iterator[_Change]:
    if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise):
        yield _Change(node.body[0], node.body[-1], "raise")
    if isinstance(node, ast.stmt):
        for text in _statements(node):
            yield _Change(node, node, text)
    if isinstance(node, (ast.If, ast.While, ast.IfExp)) and not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
        yield _Change(node.test, node.test, f"(not ({ast.unparse(node.test)}))")
    if isinstance(node, ast.comprehension):
        for condition in node.ifs:
            yield _Change(condition, condition, "True")
    for new in _expressions(node, in_error):
        text = ast.unparse(new)
        yield _Change(node, node, f"({text})" if isinstance(new, _TO_BE_ENCLOSED) else text)


def _statements(node: ast.stmt) -> Iterator[str]:
    is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    if is_call or isinstance(node, (ast.Raise, ast.Continue, ast.Break)):
        yield "pass"
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return None"


def _expressions(node: ast.AST, in_error: bool) -> Iterator[ast.expr]:
    """What an expression could be instead."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            for other in _OPPOSITES[type(operator)]:
                ops = [*node.ops[:number], other(), *node.ops[number + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        for rest in _without_each(node.values):
            yield ast.BoolOp(node.op, rest) if rest[1:] else rest[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        yield ast.BinOp(node.left, _OPERATORS[type(node.op)], node.right)
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value) for value in _constants(node.value))
    elif isinstance(node, ast.JoinedStr):
        # Of a sentence to users not every word is tested.
        yield from [ast.Constant("")] if in_error else map(ast.JoinedStr, _without_each(node.values))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _SWAPPED_NAMES:
        yield ast.Name(_SWAPPED_NAMES[node.id])
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)) and len(node.elts) > 1:
        if not isinstance(getattr(node, "ctx", None), ast.Store):
            yield from (_with(node, elts=rest) for rest in _without_each(node.elts))
    elif isinstance(node, ast.Dict):
        for keys, values in zip(_without_each(node.keys), _without_each(node.values)):
            yield ast.Dict(keys, values)


def _constants(value: object) -> Iterator[Union[bool, int, str]]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, str):
        yield "" if value else "XX"
        for number in re.finditer(r"\d+", value):
            yield f"{value[: number.start()]}{int(number.group()) + 1}{value[number.end() :]}"


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    if isinstance(node.func, ast.Attribute) and node.func.attr in _NORMALIZING_METHODS and not node.args:
        yield node.func.value
    if _is_log(node):
        return
    for keywords in _without_each(node.keywords):
        yield _with(node, keywords=keywords)
    if node.args[1:]:
        yield _with(node, args=node.args[:-1])
        if all(isinstance(argument, (ast.Name, ast.Attribute)) for argument in node.args[-2:]):
            yield _with(node, args=[*node.args[:-2], *reversed(node.args[-2:])])


def _without_each(items: Sequence[Optional[ast.AST]]) -> Iterator[list]:  # type: ignore[type-arg]
    return ([*items[:number], *items[number + 1 :]] for number in range(len(items)))


def _with(node: ast.expr, **fields: object) -> ast.expr:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed
