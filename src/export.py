"""``python src/export.py ...`` is ``bnnbench export ...`` from a checkout."""

from bnnbench.commands import run

run("export")
