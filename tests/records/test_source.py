"""The hash of a run's code: it follows all that the run reaches, and only what code says."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from bnnbench.config import conf_dir, load_option, options, to_dict
from bnnbench.losses import KINDS, task_loss
from bnnbench.optim.recipe import LATENT, OPTIMIZERS, Recipe
from bnnbench.quantizers import NONLINEARITIES
from bnnbench.records.source import GENERAL, PACKAGE, reached, source_hash, targets

QUANTIZERS = options("quantizer")
FP32 = to_dict(load_option("quantizer", "fp32", {}))


def config_of(quantizer: str = "fp32", loss: str = "task", **groups: Any) -> dict[str, Any]:
    """What of a run's config the hash reads; the terms of a loss keep their interpolations."""
    node = OmegaConf.to_container(OmegaConf.load(conf_dir() / "loss" / f"{loss}.yaml"))
    return {"quantizer": to_dict(load_option("quantizer", quantizer, {})), "loss": node, **groups}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package, with the options beside it."""
    shutil.copytree(conf_dir(), tmp_path / "conf")
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, tmp_path / "src" / "bnnbench", ignore=ignored))


def change(package: Path, file: str, name: str) -> None:
    """Let the definition ``name`` do something more, in a file of the copy."""
    tree = ast.parse((package / file).read_text())
    node = next(n for n in tree.body if getattr(n, "name", None) == name)
    node.body.append(ast.parse("print('changed')").body[0])  # pyright: ignore
    (package / file).write_text(ast.unparse(tree))


# What the running code says it uses, against what was read.


def functions_of(thing: Any) -> Iterator[FunctionType]:
    """All functions that belong to a class, or a function itself."""
    if isinstance(thing, FunctionType):
        yield thing
    for member in vars(thing).values() if isinstance(thing, type) else ():
        inner = getattr(member, "__func__", getattr(member, "fget", member))
        inner = getattr(inner, "__wrapped__", inner)  # of no_grad
        if isinstance(inner, FunctionType) and inner.__module__ == thing.__module__:
            yield inner  # not what a NamedTuple was given


def names_in(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(names_in, inner))


def used_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of everything of this package that a class or a function uses."""
    for base in getattr(thing, "__bases__", ()):
        yield base.__name__, base
    for function in functions_of(thing):
        names = names_in(function.__code__)
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            if isinstance(value, ModuleType) and value.__name__.startswith("bnnbench."):
                found = {n: vars(value)[n] for n in names & vars(value).keys()}
                yield from ((n, v) for n, v in found.items() if not isinstance(v, ModuleType))
            elif not isinstance(value, ModuleType):
                yield name, value


def runtime_closure(path: str) -> set[str]:
    """Dotted paths of classes and functions, and ``*.NAME`` of constants, that are in use."""
    module, _, name = path.rpartition(".")
    waiting, found = [(name, getattr(importlib.import_module(module), name))], set()
    while waiting:
        name, value = waiting.pop()
        home = getattr(value, "__module__", None)
        if not isinstance(value, type | FunctionType):
            found.add(f"*.{name}")
        elif str(home).startswith("bnnbench.") and str(home).split(".")[1] not in GENERAL:
            path = f"{home}.{value.__qualname__}"
            waiting += [] if path in found else list(used_by(value))
            found.add(path)
    return found


def check_closure(config: dict[str, Any]) -> None:
    chosen = targets(config)
    read = {path for target in chosen for path in reached(target)}
    constants = {f"*.{path.rpartition('.')[2]}" for path in read}
    running = {path for target in chosen for path in runtime_closure(target)}
    known = {path for path in running if not path.startswith("*.__")}  # __class__ and the like
    assert chosen
    assert known <= read | constants
    assert not [path for path in read if path.split(".")[1] in GENERAL]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_all_that_a_quantizer_uses_is_reached(name: str) -> None:
    check_closure(config_of(name))


@pytest.mark.parametrize("name", [n for n in options("loss") if n != "task"])
def test_all_that_a_loss_uses_is_reached(name: str) -> None:
    check_closure(config_of(loss=name))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_that_a_recipe_builds_is_reached(name: str) -> None:
    groups = {"latent": {LATENT[name].setting: 8}} if name in LATENT else {}
    recipe = Recipe(name, 0.1, groups=groups)
    built = recipe.build({"latent": [nn.Parameter(torch.zeros(2))]}, 10)["optimizer"]
    check_chosen(type(built), config_of(recipe={"optimizer": name}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_that_a_task_has_is_reached(kind: str) -> None:
    config = config_of() | {"loss": {"kind": kind}}
    check_chosen(type(task_loss("classification", kind=kind)), config)


@pytest.mark.parametrize("name", options("dataset"))
def test_the_loss_that_a_dataset_has_is_reached(name: str) -> None:
    node = OmegaConf.load(conf_dir() / "dataset" / f"{name}.yaml")
    dataset = OmegaConf.to_container(node)
    assert isinstance(dataset, dict)
    task = dataset.pop("task", "classification")  # no part of a result's config
    check_chosen(type(task_loss(task)), config_of(dataset=dataset))


@pytest.mark.parametrize("name", list(NONLINEARITIES))
def test_the_nonlinearity_of_a_backbone_is_reached(name: str) -> None:
    for key in ("nonlinearity", "stem_nonlinearity"):
        check_chosen(type(NONLINEARITIES[name](4)), config_of(backbone={key: name}))


def test_where_a_package_has_no_such_nonlinearity_pytorchs_was_taken(tmp_path: Path) -> None:
    package = shutil.copytree(PACKAGE, tmp_path / "bnnbench")
    file = package / "quantizers" / "nonlinearities.py"
    file.write_text(file.read_text().replace("class Hardtanh", "class Other"))
    clipped, plain = (config_of(backbone={"nonlinearity": name}) for name in ("hardtanh", "relu"))
    assert source_hash(clipped, package) == source_hash(plain, package)
    assert source_hash(clipped) != source_hash(plain)


def check_chosen(kind: type, config: dict[str, Any]) -> None:
    """``kind`` is among what the config chooses, if it is of this package; nothing is in vain."""
    added = targets(config) - targets({"quantizer": FP32})
    own = {f"{kind.__module__}.{kind.__qualname__}"}
    assert added == (own if kind.__module__.startswith("bnnbench.") else set())


def test_methods_of_the_same_classes_have_the_same_hash_and_no_others() -> None:
    configs = [config_of(name) for name in QUANTIZERS]
    assert len({source_hash(config) for config in configs}) == len(
        {*map(frozenset, map(targets, configs))}
    )


# What borrows changes with what it borrows.

BORROWED = {
    "siman": ("quantizers/standardise.py", "spread"),
    "ienet": ("quantizers/standardise.py", "spread"),
    "ovsw": ("quantizers/standardise.py", "spread"),
    "rbnn": ("quantizers/standardise.py", "unit_std"),
    "abbnn": ("quantizers/reactnet.py", "RSign"),
    "abcnet": ("quantizers/surrogate.py", "straight_through"),
    "dorefa": ("quantizers/surrogate.py", "map_gradient"),
    "wage": ("quantizers/surrogate.py", "map_gradient"),
    "zhuang": ("quantizers/dorefa.py", "quantize"),
}


@pytest.mark.parametrize("name", BORROWED)
def test_a_method_changes_with_what_it_borrows(name: str, package: Path) -> None:
    before = source_hash(config_of(name)), source_hash(config_of("birealnet"))
    change(package, *BORROWED[name])
    after = source_hash(config_of(name), package), source_hash(config_of("birealnet"), package)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_a_run_changes_with_its_optimizer(package: Path) -> None:
    runs = [config_of("wage", recipe={"optimizer": name}) for name in ("wage", "adam")]
    before = [source_hash(run) for run in runs]
    change(package, "optim/wage.py", "WAGE")
    after = [source_hash(run, package) for run in runs]
    assert after[0] != before[0]
    assert after[1] == before[1]


@pytest.mark.parametrize(
    ("loss", "file", "name"),
    [
        ("kd", "losses/distillation.py", "soft_target_loss"),
        ("mcn", "losses/mcn.py", "filter_loss"),
        ("pcnn", "quantizers/pcnn.py", "projected"),
        ("sse", "quantizers/wage.py", "quantized_error"),
        ("bbb", "losses/variational.py", "scale_mixture"),
    ],
)
def test_a_run_changes_with_its_losses(loss: str, file: str, name: str, package: Path) -> None:
    runs = [config_of("xnor", loss=loss) for loss in (loss, "task")]
    before = [source_hash(run) for run in runs]
    change(package, file, name)
    after = [source_hash(run, package) for run in runs]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_what_all_methods_share_belongs_to_none(package: Path) -> None:
    change(package, "layers.py", "binary_layers")
    change(package, "backbones/structure.py", "Structure")
    for loss in options("loss"):
        assert source_hash(config_of("xnor", loss), package) == source_hash(config_of("xnor", loss))


def test_stages_count_with_what_they_put_in_place() -> None:
    stages: list[dict[str, Any]] = [
        {"name": "a", "set": {"loss": "sse", "recipe.optimizer": "extragradient"}},
        {"name": "b", "set": {"quantizer": "recu", "backbone.nonlinearity": "maxout"}},
        {
            "name": "c",
            "set": {"quantizer.weight": {"_target_": "bnnbench.quantizers.lab.LABWeight"}},
        },
    ]
    config = config_of(recipe={"optimizer": "adam", "stages": stages})
    names = {path.rpartition(".")[2] for path in targets(config) - targets(config_of())}
    assert {"SumOfSquares", "Extragradient", "ReCUWeight", "Maxout", "LABWeight"} <= names


# What code does not say does not count.


class Reworded(ast.NodeTransformer):
    """Other docstrings, no annotations of arguments and results."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        said = isinstance(node.value, ast.Constant)
        return ast.Expr(ast.Constant("Other words.")) if said else self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)


def test_words_and_types_do_not_count(package: Path) -> None:
    for file in package.rglob("*.py"):
        tree = Reworded().visit(ast.parse(file.read_text()))
        file.write_text(f"# a comment\n{ast.unparse(ast.fix_missing_locations(tree))}\n")
    for name in QUANTIZERS:
        assert source_hash(config_of(name), package) == source_hash(config_of(name))
    for name in options("loss"):
        assert source_hash(config_of(loss=name), package) == source_hash(config_of(loss=name))


def edited(package: Path, file: str, *replaced: tuple[str, str]) -> None:
    text = (package / file).read_text()
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    (package / file).write_text(text)


def move_spread(package: Path) -> None:
    """The spread into a module of its own."""
    file = package / "quantizers" / "standardise.py"
    tree = ast.parse(file.read_text())
    moved = next(node for node in tree.body if getattr(node, "name", None) == "spread")
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    home = ast.Module([*imports, moved], [])
    (package / "quantizers" / "moments.py").write_text(ast.unparse(home))
    tree.body[tree.body.index(moved)] = ast.parse(
        "from bnnbench.quantizers.moments import spread"
    ).body[0]
    file.write_text(ast.unparse(tree))


def reverse(package: Path) -> None:
    file = package / "quantizers" / "standardise.py"
    tree = ast.parse(file.read_text())
    file.write_text(ast.unparse(ast.Module(tree.body[:1] + tree.body[:0:-1], [])))


IMPORT = "from bnnbench.quantizers.standardise import spread"
HARMLESS: dict[str, Callable[[Path], None]] = {
    "moved": move_spread,
    "order": reverse,
    "alias": lambda p: edited(
        p, "quantizers/ovsw.py", (IMPORT, f"{IMPORT} as width"), ("spread(", "width(")
    ),
    "module": lambda p: edited(
        p,
        "quantizers/ovsw.py",
        (IMPORT, "import bnnbench.quantizers.standardise as other"),
        ("spread(", "other.spread("),
    ),
    "relative": lambda p: edited(
        p, "quantizers/ovsw.py", (IMPORT, "from .standardise import spread")
    ),
    "local": lambda p: edited(
        p,
        "quantizers/ovsw.py",
        (f"{IMPORT}\n", ""),
        (
            "    return mean_magnitude(centred) / spread(",
            f"    {IMPORT}\n    return mean_magnitude(centred) / spread(",
        ),
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_where_a_definition_stands_does_not_count(name: str, package: Path) -> None:
    HARMLESS[name](package)
    for method in ("siman", "recu", "ovsw"):
        assert source_hash(config_of(method), package) == source_hash(config_of(method))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_definition_is_followed_wherever_it_stands(name: str, package: Path) -> None:
    HARMLESS[name](package)
    change(
        package,
        "quantizers/moments.py" if name == "moved" else "quantizers/standardise.py",
        "spread",
    )
    assert source_hash(config_of("ovsw"), package) != source_hash(config_of("ovsw"))


HARMFUL = {
    "constant": ("adabin", "quantizers/adabin.py", ("EPS = ", "EPS = 2 * ")),
    "default": ("recu", "quantizers/recu.py", ("detached: bool = False", "detached: bool = True")),
    "fields": ("xnor", "quantizers/base.py", ("    scale: Tensor\n", "")),
    "import": ("recu", "quantizers/recu.py", ("import Tensor", "import special as math, Tensor")),
    "base": ("ovsw", "quantizers/ovsw.py", ("class OvSWWeight(Side)", "class OvSWWeight(object)")),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_code_says_counts(name: str, package: Path) -> None:
    method, file, replaced = HARMFUL[name]
    edited(package, file, replaced)
    assert source_hash(config_of(method), package) != source_hash(config_of(method))


# Whatever cannot be told by name is taken whole.


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., frozenset[str]]:
    """Names reached from ``bnnbench.start.run`` of a package of the given files."""

    def names(**files: str) -> frozenset[str]:
        root = tmp_path / "bnnbench"
        root.mkdir()
        for name, text in {"__init__": "", **files}.items():
            (root / f"{name}.py").write_text(text)
        return frozenset(p.removeprefix("bnnbench.") for p in reached("bnnbench.start.run", root))

    return names


TABLE = "def a(): pass\ndef b(): pass\nTABLE = {'a': a}\n"
START = "def run(x: b): return "


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (f"from bnnbench.other import a, b\n{START}a", {"a"}),
        (f"from bnnbench.other import TABLE, b\n{START}TABLE['a']", {"a", "TABLE"}),
        (f"from bnnbench import other\n{START}getattr(other, 'a')", {"a", "b", "TABLE"}),
        (f"from bnnbench.other import *\n{START}a", {"a", "b", "TABLE"}),
        (f"import bnnbench.other\n{START}bnnbench.other.a", {"a"}),
        ("def run():\n    from bnnbench.other import a as c\n    return c", {"a"}),
        (f"from bnnbench.other import given\n{START}given", {"a", "b", "TABLE", "__getattr__"}),
        (
            "from bnnbench.other import a as c\ndef other():\n    from bnnbench.other import b as c"
            "\ndef run():\n    return c",
            {"a"},
        ),
        (
            "from bnnbench.other import a as c\nclass run:\n    def f():\n        return c\n"
            "    def g():\n        from bnnbench.other import b as c",
            {"a", "b"},
        ),
        ("def run(b):\n    from bnnbench.other import a\n    return [a for a in b]", {"a"}),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
            "from bnnbench.other import a\ndef run():\n    return a",
            set(),
        ),
    ],
)
def test_imports(small: Callable[..., frozenset[str]], start: str, expected: set[str]) -> None:
    given = "def __getattr__(name): return a\n" if "given" in start else ""
    found = small(start=start, other=TABLE + given)
    assert found == {"start.run", *(f"other.{name}" for name in expected)}


def test_a_table_counts_with_what_is_added_to_it(small: Callable[..., frozenset[str]]) -> None:
    added = f"{TABLE}TABLE['b'] = b\ndef c(): pass\nTABLE.update(c=c)\n"
    found = small(start=f"from bnnbench.other import TABLE\n{START}TABLE", other=added)
    assert found == {"start.run", "other.TABLE", "other.a", "other.b", "other.c"}


def test_a_class_that_moved_is_found_and_one_that_is_gone_is_missing() -> None:
    config = config_of("siman")
    hashes = [source_hash(config)]
    for path in ("elsewhere.SiMaNWeight", "siman.Gone", "siman.Lost"):
        side = config["quantizer"]["weight"] | {"_target_": f"bnnbench.quantizers.{path}"}
        hashes.append(source_hash(config | {"quantizer": config["quantizer"] | {"weight": side}}))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_config_without_a_quantizer_is_refused() -> None:
    with pytest.raises(KeyError, match="whole config"):
        source_hash(config_of("xnor")["quantizer"])


def test_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("xnor")
    before = source_hash(config)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("read again"))
    assert source_hash(config) == before


def test_it_imports_neither_torch_nor_the_method() -> None:
    program = (
        "import sys, json; from bnnbench.records.source import source_hash\n"
        "print(source_hash(json.loads(sys.argv[1])))\n"
        "assert not {'torch', 'bnnbench.quantizers'} & set(sys.modules)"
    )
    run = [sys.executable, "-c", program, json.dumps(config_of("wage"))]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == source_hash(config_of("wage"))
