"""The page of methods, docs/methods.md, with a plot a method: `make docs`.

The text is quoted from where it belongs: the header of the quantizer's file (title, equations, what
was changed) and the comments of its yaml. Bits, costs and curves come from the built modules,
published numbers from results/published. A new option of the quantizer group appears by itself.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch import nn

from bnnbench.config import (
    IMAGE_DEFAULTS,
    backbone_from_config,
    conf_dir,
    load_option,
    options,
    quantizer_from_config,
)
from bnnbench.layers import BinaryLayer, QuantizerSpec, binary_layers
from bnnbench.metrics.operations import NetworkCost, count_operations
from bnnbench.quantizers.base import Identity
from bnnbench.report.markup import MISSING, grid
from bnnbench.report.matching import entry_dataset
from bnnbench.report.notes import MARKS
from bnnbench.report.published import is_verified, load_published
from bnnbench.report.tables import scientific, significant, width
from surrogates import draw_surrogates

_PLACES = [("cifar10", b) for b in ("resnet20", "resnet18", "vgg_small", "vgg7")]
_PLACES += [("imagenet", "resnet18")]
_STRUCTURE = ("shortcut", "downsample", "nonlinearity", "head_norm", "first", "last")
_SHARED_KEYS = {"name", "weight", "activation", "output", "padding_value", *_STRUCTURE}
_UPDATES = {"g": "gradients or updates", "e": "errors"}
_OTHER_NETWORKS = {"stages", "losses", "varied", "hyper", "variant"}  # not the method as such
_TITLE = """\
# Methods

<!-- written by `make docs`: edit the header of a quantizer's file or the comments of its yaml -->

Every option of the quantizer group but `fp32`, in the words of its file and its yaml. **Changed**
and **Ours** say where this suite differs from the paper or its code.

The plots are computed by autograd of the modules in training mode: value and gradient of the sum of
all values, for a filter of 576 standard normal weights and for one channel of a standard normal
map, in three colours where a schedule moves them. A method that centres its filter takes the mean
from that gradient, and all of it where it is flat. OPs and packed size are those of a CIFAR
ResNet-20 in the method's own structure.

The sign of 0 is +1 in every method. Most public code takes torch.sign, which gives 0, a third
value: where an input is exactly 0, outputs differ from that code's. It is so in the new channels of
zero-padded shortcuts (`downsample` `pad` and `avgpool_pad`, those of ResNet-20) behind a batch norm
that has seen no data: in evaluation of a fresh ResNet-20 in IR-Net's structure 3.4 % of the next
layer's inputs are 0. In training, which subtracts the mean of the batch, and after it none were
found.

Losses, priors and measurements of the Bayesian family: [methods_bayesian.md](methods_bayesian.md).
A method of your own: [adding_a_quantizer.md](adding_a_quantizer.md).
"""


class Header(NamedTuple):
    """A file's header: its title, the paragraphs on its maths, and what was changed ("" if nothing
    is said)."""

    title: str
    body: list[str]
    changed: str


class YamlKey(NamedTuple):
    """One key at the top level of a yaml, as it is written there."""

    name: str
    value: str
    comment: str


class Method(NamedTuple):
    """One option: its yaml, a ResNet-20's layer that it binarizes, and the network's cost."""

    name: str
    summary: str
    keys: dict[str, YamlKey]
    spec: QuantizerSpec
    layer: BinaryLayer
    cost: NetworkCost

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What the layer is made of."""
        parts = {
            "weights": self.layer.weight_quantizer,
            "activations": self.layer.activation_quantizer,
            "behind the convolution": getattr(self.layer, "output", None),
        }
        return {role: part for role, part in parts.items() if part is not None}

    @property
    def files(self) -> list[str]:
        """Names of the files of its parts, its own first; none for real sides."""
        parts = [part for part in self.parts.values() if not isinstance(part, Identity)]
        names = dict.fromkeys(_file(part) for part in parts)
        return sorted(names, key=lambda name: name != self.name)

    @property
    def bits(self) -> str:
        """Bits of weights and activations, times bases."""
        sides = self.layer.weight_quantizer, self.layer.activation_quantizer
        return width((side.bits, side.bases) for side in sides)

    @property
    def costs(self) -> list[str]:
        """OPs, and megabytes packed."""
        return [scientific(self.cost.ops), significant(self.cost.packed_bytes / 1e6)]


def write_page(docs: Path, published: Path) -> Path:
    """Write methods.md, and methods/<name>.png for every method, into the folder ``docs``."""
    methods = load_methods()
    for method in methods:
        draw_surrogates(method.spec, docs / "methods" / method.name)
    path = docs / "methods.md"
    path.write_text(page(methods, published), encoding="utf-8")
    return path


def page(methods: list[Method], published: Path) -> str:
    """The text of methods.md; ``published`` is the folder of published numbers."""
    quotes = _quotes(published)
    rows = [[f"[{m.name}](#{m.name})", _prose(m.summary), m.bits, *m.costs] for m in methods]
    index = _table(["option", "paper", "W/A bits", "OPs", "packed MB"], rows)
    sections = [_section(method, quotes.get(method.name, [])) for method in methods]
    recalled = f"{MARKS['unverified']} recalled: nobody of us has read it at its source.\n"
    return "\n".join([_TITLE, index, recalled, *sections])


def load_methods() -> list[Method]:
    """Every option but fp32, as a run of ResNet-20 on CIFAR-10 resolves it."""
    backbone = load_option("backbone", "resnet20", {})
    data = {"num_classes": 10, **IMAGE_DEFAULTS}
    return [_load(name, backbone, data) for name in options("quantizer") if name != "fp32"]


def _load(name: str, backbone: DictConfig, data: dict[str, int]) -> Method:
    nodes = {"quantizer": load_option("quantizer", name, {}), "backbone": backbone}
    root = OmegaConf.create({**nodes, "dataset": data})
    spec = quantizer_from_config(root.quantizer)
    net = backbone_from_config(root.backbone, spec)
    _, layer = next(binary_layers(net))
    summary, keys = read_yaml((conf_dir() / "quantizer" / f"{name}.yaml").read_text("utf-8"))
    return Method(name, summary, keys, spec, layer, count_operations(net, (3, 32, 32)))


def read_yaml(text: str) -> tuple[str, dict[str, YamlKey]]:
    """The comment that a yaml begins with, and its top-level keys with theirs.

    Lines of comment alone go on with the comment before them; elsewhere they are headings.
    """
    head, keys, last = [], {}, ""
    for line in text.splitlines():
        if match := re.match(r"(\w+):\s*(.*?)\s*(?:(?:^|\s)#\s*(.*))?$", line):
            last = match[1]
            keys[last] = YamlKey(last, match[2], match[3] or "")
        elif line.startswith("#"):
            comment = line.lstrip("# ")
            if not keys:
                head.append(comment)
            elif keys[last].comment:
                keys[last] = keys[last]._replace(comment=f"{keys[last].comment} {comment}")
        elif keys:  # an indented line
            keys[last] = keys[last]._replace(comment="")
    return " ".join(head), keys


def read_header(module: str) -> Header:
    """The docstring of a quantizer's file, in its parts."""
    text = inspect.getdoc(importlib.import_module(module)) or ""
    title, _, rest = text.partition("\n\n")
    body, *changed = re.split(r"\b(?=(?:Changed|Ours):\s)", rest, maxsplit=1)
    paragraphs = [" ".join(part.split()) for part in body.split("\n\n")]
    return Header(title, [part for part in paragraphs if part], " ".join(changed))


def _section(method: Method, quotes: list[list[str]]) -> str:
    # What a method borrows from another one stands in that one's section.
    borrowed = [name for name in method.files[1:] if name in options("quantizer")]
    files = [name for name in method.files if name not in borrowed]
    paragraphs = [part for name in files for part in _paragraphs(name, method.name)]
    picture = f"![value and gradient of {method.name}](methods/{method.name}.png)"
    facts = "\n".join([*_option(method), _parts(method), _structure(method), _numbers(method)])
    header = ["data", "network", "as", "bits", "top-1 %", "training", "source"]
    published = _table(header, quotes) if quotes else "No published number for these networks.\n"
    return "\n\n".join([f"## {method.name}", *paragraphs, picture, facts, published])


def _paragraphs(file: str, method: str) -> list[str]:
    header = read_header(f"bnnbench.quantizers.{file}")
    title = _prose(header.title)
    if file != method:
        title = f"[`{file}.py`]({_source(file)}): {title}"
    changed = re.sub(r"^(\w+:)", r"**\1**", _prose(header.changed))
    return [part for part in (title, *map(_prose, header.body), changed) if part]


def _option(method: Method) -> list[str]:
    named = f"`quantizer={method.name}` ([yaml](../conf/quantizer/{method.name}.yaml))"
    lines = [f"- {named}: {_prose(method.summary)}"]
    for name, value, comment in method.keys.values():
        if name not in _SHARED_KEYS:
            lines.append(f"  - `{name}={value}`" + (f": {_prose(comment)}" if comment else ""))
    return lines


def _parts(method: Method) -> str:
    words = []
    for role, part in method.parts.items():
        file, word = _file(part), f"{role} real"
        if not isinstance(part, Identity):
            word = f"{role} [`{type(part).__name__}`]({_source(file)})"
            if file != method.name and file in options("quantizer"):
                word += f" of [{file}](#{file})"
        words.append(word)
    return f"- {', '.join(words)}"


def _structure(method: Method) -> str:
    words = []
    for key in _STRUCTURE:
        _, value, comment = method.keys[key]
        words.append(f"{key} `{value}`" + (f" ({_prose(comment)})" if comment else ""))
    return f"- {', '.join(words)}"


def _numbers(method: Method) -> str:
    sides = method.layer.weight_quantizer, method.layer.activation_quantizer
    bases = "/".join(str(side.bases) for side in sides)
    ops, packed = method.costs
    few = method.spec.bits
    below = "".join(f", of {word} {few[side]}" for side, word in _UPDATES.items() if side in few)
    return (
        f"- W/A bits {method.bits}{below}, bases {bases}; ResNet-20: {ops} OPs, {packed} MB packed"
    )


def _quotes(folder: Path) -> dict[str, list[list[str]]]:
    """Rows of published numbers by method, in the order of the networks; repeats are dropped."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there: the page quotes its published numbers")
    found: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for path in sorted(folder.glob("*.yaml")):
        content = load_published(path)
        for entry in content["rows"]:
            place = entry_dataset(entry, content), entry["backbone"]
            if place in _PLACES and "top1" in entry["values"] and not _OTHER_NETWORKS & set(entry):
                row = _quote(entry, str(place[0]))
                found.setdefault(entry["method"], {}).setdefault(tuple(row[:-1]), row)
    order = {place: number for number, place in enumerate(_PLACES)}
    return {
        method: sorted(rows.values(), key=lambda row: order[row[0], row[1]])
        for method, rows in found.items()
    }


def _quote(entry: dict[str, Any], dataset: str) -> list[str]:
    bits, bases = entry["bits"], entry.get("bases", {"w": 1, "a": 1})
    mark = "" if is_verified(entry, "top1") else MARKS["unverified"]
    training = entry.get("training", "one step").replace("_", " ")
    return [
        *(dataset, entry["backbone"], entry["label"]),
        width((bits[side], bases.get(side, 1)) for side in "wage" if side in bits),
        f"{entry['values']['top1']}{mark}",
        training,
        " ".join((entry["source"] or MISSING).split()),
    ]


def _file(part: nn.Module) -> str:
    return type(part).__module__.rpartition(".")[2]


def _source(file: str) -> str:
    return f"../src/bnnbench/quantizers/{file}.py"


def _table(header: list[str], rows: list[list[str]]) -> str:
    return grid([header, *rows]) + "\n"


def _prose(text: str) -> str:
    """Markdown of a header or comment: literals as they are, arXiv ids and repositories linked."""
    parts = re.split(r"(``.+?``)", " ".join(text.split()))
    return "".join(part if part.startswith("``") else _linked(part) for part in parts)


def _linked(text: str) -> str:
    text = re.sub(r"(?<!\*)([*<])(?!\*)", r"\\\1", text)
    text = re.sub(r"\b(\d{4}\.\d{4,5})\b", r"[\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"([Cc]ode:? )([\w-]+/[\w.-]*\w)", r"\1[\2](https://github.com/\2)", text)


if __name__ == "__main__":
    top = Path(__file__).resolve().parents[2]
    print(write_page(top / "docs", top / "results" / "published"))
