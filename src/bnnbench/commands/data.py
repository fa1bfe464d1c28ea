"""``bnnbench data check <folder>``: what training would read there."""

from __future__ import annotations

from bnnbench.data.check import main


def run() -> None:
    """The command with the arguments of ``sys.argv``; exits with 1 where something is wrong."""
    raise SystemExit(main())
