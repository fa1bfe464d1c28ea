"""Which keys a command line may leave out."""

import pytest

from bnnbench.checks.deleted import check_deleted


@pytest.mark.parametrize(
    "word",
    [
        *("~tags", "~seed", "~force", "~logger", "~teacher", "~callbacks", "~recipe.lr"),
        *("~trainer.precision", "~loss.terms", "~dataset.batch_size=64", "~table", "~paths"),
    ],
)
def test_what_a_run_reads_cannot_be_left_out(word: str) -> None:
    key = word[1:].partition("=")[0]
    with pytest.raises(ValueError, match=f"^{word}: .* give {key}=<value>$"):
        check_deleted(["quantizer=xnor", word])


@pytest.mark.parametrize(
    "word",
    [
        *("~callbacks.best", "~callbacks.last.save_last", "~loss.terms.feature", "~debug"),
        *("~recipe.groups.scale", "~hydra.verbose", "~hydra/launcher", "tags=[~a]"),
    ],
)
def test_what_is_optional_can(word: str) -> None:
    check_deleted([word])
