"""``python src/train.py ...`` is ``bnnbench train ...`` from a checkout."""

from bnnbench.commands import run

run("train")
