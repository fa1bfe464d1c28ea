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
bnnbench train <words> --cfg job --resolve                 shows all values, trains nothing"""

EVALUATE = """\
bnnbench evaluate ckpt_path=<file>   a checkpoint of a run on its test set: it says what it is
  dataset=<option> dataset.folder=<where>   where its data lie elsewhere now
  trust=[mypkg]                             packages whose classes it may name beside this one
  quantizer=... backbone=... dataset=...    of a checkpoint that does not say what network it is
  checkpoint_map=<name>                     whose names its tensors have, where they are others'
  trainer.accelerator=cpu, logger=<option>  as of a training

It writes evaluation.json into a folder of its own. Further groups: bnnbench train --help."""

REPORT = """\
bnnbench report                      renders all tables and figures of logs/sweeps and results/
  sweep=<sweep>                             says what of it is done, running or missing
  promote=<sweep>                           copies a sweep of logs/sweeps into results/ first
  as=<name> title='<words>'                 under another name, with a title of its own
  allow_dirty=true, allow_partial=true      also what no commit, or no full run, stands behind
  'figures=[curves,scores]'                 these figures, which docs/figures.md lists
  figure=<name> table=<sweep> format=pdf    one figure alone: png, svg or pdf
  scores scale=quick                        methods in six tracks, of the largest scale unless typed
  wandb=<entity>/<project> table=<sweep>    a W&B Report of a sweep alone
  site=true                                 results and docs as pages in build/site, instead
  paths.log_dir=<folder>                    where the sweeps lie

Where results/bench holds what bnnbench bench measured, tables show times as well."""


def overview() -> str:
    """What to type, a line a command, and where each method is told of."""
    width = max(len(command.words) for command in COMMANDS.values()) + 2
    return "\n".join(
        [
            "bnnbench: binary neural networks, composed, trained and compared",
            "",
            *(f"  bnnbench {command.words:{width}}{command.line}" for command in COMMANDS.values()),
            "",
            "bnnbench train --help has a word on each of "
            f"{_count('quantizer')} methods, {_count('backbone')} networks, "
            f"{_count('dataset')} data sets and {_count('table')} tables.",
            "bnnbench <command> --help says what else a command takes.",
        ]
    )


def _count(group: str) -> int:
    """How many options a group has, beside those that stand for nothing of its kind."""
    return len({file.stem for file in (conf_dir() / group).glob("*.yaml")} - {"none", "fp32"})


def of_train() -> str:
    """What to type, and the options of each group with a word on every one."""
    return "\n".join([textwrap.indent(EXAMPLES, "  "), *(_group(group) for group in GROUPS)])


def of_evaluate() -> str:
    """What to type."""
    return EVALUATE


def of_report() -> str:
    """What to type."""
    return REPORT


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
