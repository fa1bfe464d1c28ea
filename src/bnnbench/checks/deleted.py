"""Keys deleted on a command line (``~key``): only those that a run can do without."""

from __future__ import annotations

from collections.abc import Sequence

# Places whose entries may be left out, and groups that a config may be without.
OPTIONAL = ("callbacks", "loss.terms", "recipe.groups", "hydra", "backbone.kwargs")
OPTIONAL += ("recipe.epochs", "recipe.batch_size", "recipe.effective_size")
EMPTY = ("experiment", "debug")


def check_deleted(typed: Sequence[str]) -> None:
    """Refuse an override ``~key`` of a key that a run reads, which may be after its last epoch.

    Args:
        typed: the overrides of a command line.

    Raises:
        ValueError: the message says to give the key a value.
    """
    for word in (word for word in typed if word.startswith("~")):
        key = word[1:].partition("=")[0].replace("/", ".")
        if key not in EMPTY and not key.startswith(tuple(f"{place}." for place in OPTIONAL)):
            raise ValueError(
                f"{word}: a run reads {key}, so that it cannot be left out: give {key}=<value>"
            )
