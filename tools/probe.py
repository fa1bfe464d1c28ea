"""What runs compute with the code on PYTHONPATH, as digests: ``python probe.py CASES DIGESTS``.

CASES is a JSON list of ``{key, config, precision, options}``, DIGESTS the JSON that is written. It
runs on old code as well as on new, needs no data, and takes one thread. Tensors count by shape,
type and bits, in any order and under any name.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import bnnbench
from bnnbench import resolvers
from bnnbench.config import conf_dir, quantizer_from_config
from bnnbench.layers import set_progress
from digests import digest, random
from probe_network import networks, root_of

LAYERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "plain": lambda spec, padding: spec.conv2d(4, 6, 3, padding=1, **padding),
    "strided": lambda spec, padding: spec.conv2d(4, 6, 3, stride=2, padding=1, **padding),
    "grouped": lambda spec, padding: spec.conv2d(4, 6, 3, padding=1, groups=2, **padding),
    "linear": lambda spec, padding: spec.linear(16, 6),
}


def quantized_layers(node: DictConfig, precision: str) -> dict[str, str]:
    """Digests of single layers: outputs, gradients and states, in and after training."""
    spec = quantizer_from_config(node)
    padding = {"padding_value": node.get("padding_value", 0)}
    found = {}
    for name, build in LAYERS.items():
        torch.manual_seed(0)
        try:
            found[name] = _layer(build(spec, padding), precision)
        except (ValueError, RuntimeError, TypeError, IndexError) as error:
            if name == "plain":
                raise
            found[name] = f"refused: {type(error).__name__}"  # of groups, or of linear layers
    return found


def _layer(layer: Any, precision: str) -> str:
    shape = (2, 16) if isinstance(layer, nn.Linear) else (2, 4, 8, 8)
    with torch.no_grad():
        layer.weight.copy_(0.3 * random(*layer.weight.shape, seed=1))
    tensors: list[Tensor | None] = []
    for progress in (0.0, 0.5, 1.0):
        for training in (True, False):
            set_progress(layer, 10 * progress, 10)
            layer.train(training)
            tensors += _passed(layer, random(*shape, seed=2).requires_grad_(), precision)
            tensors += [state.clone() for state in layer.state_dict().values()]
    return digest(tensors)


def _passed(layer: Any, x: Tensor, precision: str) -> list[Tensor | None]:
    """Output and gradients of one pass, with what the weight side does around it in training."""
    torch.manual_seed(3)
    layer.zero_grad()
    _hook(layer, "epoch_start")
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        out = layer(x)
    out.backward(random(*out.shape, seed=4).to(out.dtype))
    gradients = [parameter.grad for parameter in layer.parameters()]
    copies = [None if grad is None else grad.clone() for grad in [x.grad, *gradients]]
    _hook(layer, "after_backward")
    changed = None if layer.weight.grad is None else layer.weight.grad.clone()
    _hook(layer, "after_step")
    return [out, *copies, changed]


@torch.no_grad()
def _hook(layer: Any, name: str) -> None:
    if layer.training and hasattr(layer.weight_quantizer, name):
        getattr(layer.weight_quantizer, name)(layer.weight)


def alternatives(config: Mapping[str, Any], options: Mapping[str, list[Any]]) -> dict[str, str]:
    """Digests of the layers at other values of the method's own options, by ``key=value``."""
    stored = config["quantizer"]
    file = conf_dir() / "quantizer" / f"{stored['name']}.yaml"
    known = OmegaConf.load(file) if file.exists() else {}
    kept = {
        k: v for k, v in stored.items() if k in known and not isinstance(v, dict) and v is not None
    }
    found = {}
    for key, values in options.items():
        for value in values if key in known else ():
            node = OmegaConf.merge(known, kept, {key: value})
            root = OmegaConf.create({"quantizer": node, "dataset": config["dataset"]})
            try:
                parts = quantized_layers(root.quantizer, "32-true")
            except (ValueError, TypeError):
                continue  # a value this code does not have yet, or any more
            found[f"{key}={value}"] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return found


def probe(case: Mapping[str, Any]) -> dict[str, Any]:
    """The digests of one case, or the error that kept it from any."""
    config, precision = case["config"], case["precision"]
    try:
        node = root_of(config).quantizer
        parts = {f"layer {k}": v for k, v in quantized_layers(node, "32-true").items()}
        if precision != "32-true":
            more = quantized_layers(node, precision)
            parts |= {f"layer {k}, {precision}": v for k, v in more.items()}
        parts |= networks(config, precision)
        return {"parts": parts, "options": alternatives(config, case["options"]), "error": None}
    except Exception:
        return {"parts": {}, "options": {}, "error": traceback.format_exc(limit=-3)}


def main(cases: Path, digests: Path) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    resolvers.register()
    found = {case["key"]: probe(case) for case in json.loads(cases.read_text())}
    machine = {"python": platform.python_version(), "torch": torch.__version__, "device": "cpu"}
    code = str(Path(bnnbench.__file__).parent)
    digests.write_text(json.dumps({"code": code, "machine": machine, "found": found}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
