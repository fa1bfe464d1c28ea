"""The text of a definition without what changes nothing, and the definitions it uses."""

from __future__ import annotations

import ast
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bnnbench.records.definitions import (
    DEFINING,
    Module,
    bound_names,
    collect_imports,
    find,
    locate,
    only_for_types,
)

TYPING = ("overload", "override", "final")  # decorators that only say something about types
FIELDS = ("dataclass", "NamedTuple")  # what makes annotated names without a value fields


class Normalised(NamedTuple):
    """Text of a definition, and dotted paths of the definitions it uses."""

    text: str
    uses: frozenset[str]


@cache
def normalised(package: Path, path: str) -> Normalised:
    """The definition at ``path``, which is one that ``find`` has returned."""
    module, rest = locate(package, path)
    assert module is not None
    statements = deepcopy(module.definitions[rest[0]])
    normaliser = _Normaliser(package, module, statements)
    kept = [normaliser.visit(statement) for statement in statements]
    text = "\n".join(ast.unparse(statement) for statement in kept if statement is not None)
    return Normalised(f"{rest[0]}\n{text}", frozenset(normaliser.uses))


class _Normaliser(ast.NodeTransformer):
    """Takes out words and types, writes what is imported in full, and notes what is used."""

    def __init__(self, package: Path, module: Module, statements: list[ast.stmt]) -> None:
        self.package, self.module = package, module
        self.uses: set[str] = set()
        self.bound = bound_names(statements)
        inner = Module(module.name, module.home)
        collect_imports([s for s in statements if isinstance(s, DEFINING)], inner)
        self.tables = inner.imports, module.imports  # one function's may hide the module's
        self.imports, self.stars = module.imports | inner.imports, module.stars + inner.stars

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # pyright: ignore[reportAttributeAccessIssue]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST | None:
        names = [ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list]
        if "overload" in names:
            return None
        pairs = zip(node.decorator_list, names, strict=True)
        node.decorator_list = [decorator for decorator, name in pairs if name not in TYPING]
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST | None:
        return self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        marks = [*node.decorator_list, *node.bases]
        if any(mark in ast.unparse(node_) for node_ in marks for mark in FIELDS):
            node.body = [_kept_field(statement) for statement in node.body]
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        plain = ast.Assign([node.target], node.value)
        return self.generic_visit(ast.copy_location(plain, node))

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        return None if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        if only_for_types(node):
            return [visited for part in node.orelse if (visited := self.visit(part))]
        return self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Global(self, node: ast.Global) -> ast.AST:
        for name in node.names:
            self._use(name)
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        path = self._use(node.id) if isinstance(node.ctx, ast.Load) else node.id
        return node if path == node.id or node.id in self.bound else _expression(path)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        path = _dotted(node)
        if path is None or path.split(".")[0] not in self.imports:
            return self.generic_visit(node)
        full = self._use(path)
        return node if path.split(".")[0] in self.bound else _expression(full, node.ctx)

    def _use(self, path: str) -> str:
        """Note the use of a name, or of attributes of one; returns how it is written in full."""
        first, _, rest = path.partition(".")
        if first in self.module.definitions:
            self.uses.add(f"{self.module.name}.{first}")
        if first not in self.imports:
            if first not in self.module.definitions:
                self.uses |= {name for star in self.stars for name in find(self.package, star)}
            return path
        full = [f"{table[first]}.{rest}".rstrip(".") for table in self.tables if first in table]
        written = [self._imported(path) for path in full]  # all are noted
        return written[0]

    def _imported(self, path: str) -> str:
        """Note the use of what is imported from ``path``; returns how it is written in full."""
        module, left = locate(self.package, path)
        if module is None:
            return path
        found = find(self.package, path)
        self.uses |= found or module.all()  # bound by no statement: by __getattr__, or a star
        if len(found) != 1 or not left:
            return path
        return ".".join([*(name.rpartition(".")[2] for name in found), *left[1:]])


def _kept_field(statement: ast.stmt) -> ast.stmt:
    """A field without a value as its bare name: order and names of fields are code."""
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return ast.copy_location(ast.Expr(statement.target), statement)
    return statement


def _dotted(node: ast.expr) -> str | None:
    """``a.b.c`` of attributes of a name that is read, else None."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Load) else None
    value = _dotted(node.value) if isinstance(node, ast.Attribute) else None
    return None if value is None else f"{value}.{node.attr}"  # pyright: ignore


def _expression(path: str, context: ast.expr_context | None = None) -> ast.expr:
    parsed = ast.parse(path, mode="eval").body
    parsed.ctx = context or ast.Load()  # pyright: ignore[reportAttributeAccessIssue]
    return parsed
