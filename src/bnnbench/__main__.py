"""``python -m bnnbench`` is the command ``bnnbench``."""

from bnnbench.commands import main

main()
