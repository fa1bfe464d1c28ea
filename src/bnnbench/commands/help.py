"""What ``bnnbench --help`` and ``bnnbench train --help`` print; it reads only yaml comments."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator

from bnnbench.commands import COMMANDS
from bnnbench.paths import conf_dir

GROUPS = ("quantizer", "loss", "backbone", "dataset", "recipe", "teacher", "table", "logger")
GROUPS += ("experiment", "hparams_search")
EXAMPLES = """\
bnnbench train quantizer=adabin backbone=resnet20          one run, on embedded digits
bnnbench train -m quantizer=adabin,xnor backbone=resnet20  a comparison that ends in its table
bnnbench train quantizer=xnor dataset=cifar10 seed=1 recipe.lr=0.01      any key=value
bnnbench train table=unified_cifar10 scale=quick           a table: scale=demo, quick or full
bnnbench train hparams_search=recipe dataset.val_fraction=0.1      a search on held-out images
bnnbench train quantizer=reactnet recipe=native            as its authors train it
bnnbench train <the same words>      again: reuses what is finished, resumes the rest
bnnbench train <words> force=true    runs it anew
bnnbench train <words> --cfg job --resolve                 shows all values, trains nothing
bnnbench evaluate ckpt_path=<file> <words>
bnnbench predict ckpt_path=<file> input=<images>
bnnbench data check <folder>         says what would be read there, draws a contact sheet
bnnbench report promote=<sweep>      keeps a sweep's table under results/"""


EVALUATE = """\
bnnbench evaluate ckpt_path=<file>   a checkpoint of a run on its test set: it says what it is
  dataset=<option> dataset.folder=<where>   where its data lie elsewhere now
  trust=[mypkg]                             packages whose classes it may name beside this one
  quantizer=... backbone=... dataset=...    of a checkpoint that does not say what network it is
  checkpoint_map=<name>                     whose names its tensors have, where they are others'
  trainer.accelerator=cpu, logger=<option>  as of a training

It writes evaluation.json into a folder of its own. Further groups: bnnbench train --help."""


def overview() -> str:
    """What to type, and the commands."""
    commands = [f"  {name:12}{line}" for name, (line, *_) in COMMANDS.items()]
    return "\n".join(
        [
            "bnnbench: binary neural networks, composed, trained and compared",
            "",
            textwrap.indent(EXAMPLES, "  "),
            "",
            "Commands:",
            *commands,
            "",
            "bnnbench train --help lists every method, network and data set.",
        ]
    )


def of_train() -> str:
    """What to type, and the options of each group with a word on every one."""
    return "\n".join([textwrap.indent(EXAMPLES, "  "), *(_group(group) for group in GROUPS)])


def of_evaluate() -> str:
    """What to type."""
    return EVALUATE


def titles(group: str) -> Iterator[tuple[str, str]]:
    """Each option of a group, sorted, with the first sentence of its yaml's opening comment."""
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        lines = file.read_text(encoding="utf-8").splitlines()
        opening = []
        for line in lines:
            if not line.startswith("#"):
                break
            if not line.startswith("# @package"):
                opening.append(line.lstrip("# "))
        yield file.stem, _sentence(" ".join(opening))


def _sentence(text: str) -> str:
    """The first sentence or question; the full stop of "Eq. 6" and its like ends none."""
    first = re.split(r"(?<!Eq)(?<!Fig)(?<!Figs)(?<!Sec)\. |(?<=\?) ", text, maxsplit=1)[0]
    return first.rstrip(".")


def _group(group: str) -> str:
    width = shutil.get_terminal_size().columns
    rows = list(titles(group))
    column = max(len(name) for name, _ in rows) + 2
    lines = [f"  {name:{column}}{title}" for name, title in rows]
    return "\n".join([f"\n{group}=", *(_cut(line, width) for line in lines)])


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 4].rstrip()} ..."
