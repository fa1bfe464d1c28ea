"""``python src/report.py ...`` is ``bnnbench report ...`` from a checkout."""

from bnnbench.commands import run

run("report")
