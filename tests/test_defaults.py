"""A default has one place: the yaml where one states it, else Python's signature."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from bnnbench.backbones.ssd import SSDStructure
from bnnbench.config import conf_dir, options, target, to_dict
from bnnbench.data.shapes import Shapes
from bnnbench.losses import task_loss
from bnnbench.losses.bayesian_feature import BayesianFeature
from bnnbench.losses.bayesian_kernel import BayesianKernel
from bnnbench.metrics import VOCAveragePrecision
from bnnbench.optim.recipe import Recipe

Compose = Callable[..., DictConfig]
# Built in Python without a yaml as well, as in the README: what stands there, and the yaml's node.
PUBLIC: list[tuple[Callable[..., Any], str, str]] = [
    (BayesianKernel, "loss=bonn", "loss.terms.kernel"),
    (BayesianFeature, "loss=bonn", "loss.terms.feature"),
    (task_loss, "loss=task", "loss"),
    (Recipe, "recipe=unified", "recipe"),
    (Shapes, "dataset=shapes", "dataset.generate"),
    (VOCAveragePrecision, "dataset=voc0712", "dataset"),
]


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """The nodes inside ``node`` that name a callable of this package."""
    if isinstance(node, dict) and str(node.get("_target_")).startswith("bnnbench."):
        yield node
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in inner:
        yield from targets(child)


def stated() -> dict[str, list[set[str]]]:
    """Per callable the keys that each yaml which names it states."""
    found = defaultdict(list)
    for path in sorted(conf_dir().rglob("*.yaml")):
        plain = OmegaConf.to_container(OmegaConf.load(path))
        for node in targets(plain):
            found[node["_target_"]].append(set(node) - {"_target_"})
    return found


def parameters(built: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Of a function or a class; what a class hands on as ``**options`` is its parent's."""
    found = dict(inspect.signature(built).parameters)
    if any(p.kind is p.VAR_KEYWORD for p in found.values()) and inspect.isclass(built):
        return parameters(built.__mro__[1]) | found
    return found


def defaults(built: Callable[..., Any]) -> dict[str, Any]:
    found = parameters(built).items()
    return {name: p.default for name, p in found if p.default is not inspect.Parameter.empty}


STATED = stated()
DATA = sorted(name for name in STATED if name.startswith("bnnbench.data."))


def test_the_yamls_are_read() -> None:
    """That the next test is about something."""
    assert len(STATED) > 80
    assert STATED["bnnbench.quantizers.irnet.IRNetWeight"] == [{"t_min", "t_max"}]


@pytest.mark.parametrize("name", sorted(STATED))
def test_what_every_yaml_states_has_no_default_in_python(name: str) -> None:
    """Where one yaml is silent of a key, that key's default is Python's: no yaml states it."""
    built = target({"_target_": name}).func
    if built in [public for public, *_ in PUBLIC] or name in DATA:
        return
    assert set.intersection(*STATED[name]) & set(defaults(built)) == set()


@pytest.mark.parametrize("name", DATA)
def test_a_set_of_a_config_that_lacks_a_key_is_that_of_the_yaml(name: str) -> None:
    """Checkpoints hold configs of data sets from before a key was known."""
    found = defaults(target({"_target_": name}).func)
    for path in sorted((conf_dir() / "dataset").glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        assert isinstance(node, dict)
        if node["_target_"] == name:
            plain = {k: v for k, v in node.items() if k in found and "${" not in str(v)}
            assert {key: found[str(key)] for key in plain} == plain


@pytest.mark.parametrize(("built", "choice", "path"), PUBLIC)
def test_public_defaults_are_the_yaml_s(
    compose: Compose, built: Callable[..., Any], choice: str, path: str
) -> None:
    node = to_dict(OmegaConf.select(compose(choice), path))
    both = set(node) & set(defaults(built))
    assert both
    if built is Recipe:
        found = {f.name: getattr(Recipe("adam", 1.0), f.name) for f in fields(Recipe)}
        found["milestones"] = list(found["milestones"])
    else:
        found = defaults(built)
    assert {key: found[key] for key in both} == {key: node[key] for key in both}


@pytest.mark.parametrize("name", [name for name in options("backbone") if name != "timm"])
def test_switches_of_structure_have_full_precision_s_defaults(compose: Compose, name: str) -> None:
    """What networks without a switch have; None where there is nothing to switch."""
    cfg = compose(f"backbone={name}", "quantizer=fp32", "dataset=voc0712")
    own = {key: value for key, value in defaults(SSDStructure).items() if value is not None}
    assert {"head_norm", "padding_value", "first", "last", "extras"} <= set(own)
    if name == "reactnet_a":
        own["stem_nonlinearity"] = "identity"  # its authors have nothing there
    node = to_dict(cfg.backbone)
    assert {key: node[key] for key in own if key in node} == {k: own[k] for k in own if k in node}


def test_losses_without_their_method_have_its_values(compose: Compose) -> None:
    loss = compose("loss=biper", "quantizer=xnor").loss
    assert loss.frequency == compose("quantizer=biper").quantizer.frequency
