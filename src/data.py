"""``python src/data.py ...`` is ``bnnbench data ...`` from a checkout."""

from bnnbench.commands import run

run("data")
