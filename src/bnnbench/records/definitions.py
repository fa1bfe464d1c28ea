"""Definitions at the top of this package's modules, found by reading them.

A definition is a function, a class or an assignment, with all statements that change it later.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Module:
    """Statements by the name they define, dotted paths by the name they import.

    ``home`` is the package that a leading dot of an import means.
    """

    name: str
    home: str
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)

    def all(self) -> set[str]:
        """Dotted paths of all definitions."""
        return {f"{self.name}.{name}" for name in self.definitions}


def find(package: Path, path: str) -> set[str]:
    """Dotted paths of the definitions at ``path``, through re-exports; of a module all it has.

    Empty where ``path`` is no path of the package, or nothing stands there.
    """
    module, rest = locate(package, path)
    if module is None or not rest:
        return set() if module is None else module.all()
    found = {f"{module.name}.{rest[0]}"} if rest[0] in module.definitions else set()
    if rest[0] in module.imports:
        found |= find(package, ".".join([module.imports[rest[0]], *rest[1:]]))
    return found


def locate(package: Path, path: str) -> tuple[Module | None, list[str]]:
    """The innermost module on ``path``, and what of the path is left behind it."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        module = _module(package, ".".join(parts[:length]))
        if module is not None:
            return module, parts[length:]
    return None, parts


@cache
def _module(package: Path, name: str) -> Module | None:
    first, *rest = name.split(".")
    if not all(part.isidentifier() for part in rest):  # of a file, it may be a path
        return None
    base = package.joinpath(*rest)
    files = (base.with_suffix(".py"), base / "__init__.py") if rest else (base / "__init__.py",)
    file = next((file for file in files if file.is_file()), None)
    if first != "bnnbench" or file is None:
        return None
    module = Module(name, name if file.name == "__init__.py" else name.rpartition(".")[0])
    for statement in _statements(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(statement, DEFINING):  # whose imports are its own
            collect_imports([statement], module)
        for defined in _defined(statement):
            module.definitions.setdefault(defined, []).append(statement)
    return module


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    for statement in tree.body:
        if isinstance(statement, ast.If) and only_for_types(statement):
            yield from statement.orelse
        else:
            yield statement


def only_for_types(node: ast.If) -> bool:
    return ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"


def collect_imports(nodes: Iterable[ast.AST], module: Module) -> None:
    """Into ``module``: what the imports anywhere inside ``nodes`` bind."""
    for node in (found for top in nodes for found in ast.walk(top)):
        if isinstance(node, ast.Import):
            for name in node.names:
                whole = name.name if name.asname else name.name.split(".")[0]
                module.imports[name.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            source = _source(node, module.home)
            for name in node.names:
                if name.name == "*":
                    module.stars.append(source)
                else:
                    module.imports[name.asname or name.name] = f"{source}.{name.name}"


def _source(node: ast.ImportFrom, home: str) -> str:
    parts = home.split(".")
    above = parts[: len(parts) - node.level + 1] if node.level else []
    return ".".join([*above, node.module or ""]).rstrip(".")


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module defines or changes."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return set()
    if isinstance(statement, DEFINING):
        return {statement.name}
    if isinstance(statement, ast.Assign):
        return {name for target in statement.targets for name in _roots(target)}
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        return _roots(statement.target)
    if isinstance(statement, ast.Expr):  # a call that may change what it names
        return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return bound_names([statement])


def _roots(target: ast.expr) -> set[str]:
    """``TABLE`` of ``TABLE["key"] = ...`` and ``TABLE.key = ...``; all names of a tuple."""
    if isinstance(target, ast.Tuple | ast.List):
        return {name for element in target.elts for name in _roots(element)}
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
        target = target.value
    return {target.id} if isinstance(target, ast.Name) else set()


def bound_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that are bound anywhere inside ``nodes``, by anything but an import."""
    found: set[str] = set()
    for node in (inner for top in nodes for inner in ast.walk(top)):
        if isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, DEFINING):
            found.add(node.name)
    return found
