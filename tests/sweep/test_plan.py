"""What a planned run is to the checks before the launch."""

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from bnnbench.records.store import Cell
from hydra_plugins.bnnbench_sweeper._plan import Planned, _choices_told

USUAL = [{"quantizer": "irnet", "quantizer.t_min": "1"}, {"quantizer": "adabin"}]


def planned(*overrides: str, **settings: object) -> Planned:
    return Planned(Cell({}, "run", "0" * 64, settings), OmegaConf.create(), list(overrides))


def test_runs_that_differ_in_the_seed_alone_are_of_one_kind() -> None:
    assert planned("quantizer=a", "seed=1").kind == planned("quantizer=a", "seed=2").kind
    assert planned("quantizer=a", "seed=1").kind != planned("quantizer=b", "seed=1").kind
    assert planned("dataset.seed=1").kind != planned("dataset.seed=2").kind


def test_a_file_of_each_seed_is_a_kind_of_its_own() -> None:
    for key in ("init_from", "teacher.folder"):
        first, second = (planned(f"seed={n}", **{key: f"hash{n}"}) for n in (1, 2))
        assert first.kind != second.kind


def test_a_choice_without_an_option_that_the_table_types_tells_its_choices() -> None:
    refused = ConfigCompositionException("Could not override 'quantizer.t_min'.\nAppend it")
    with (
        pytest.raises(
            ValueError, match=r"^quantizer=bonn has no quantizer.t_min, .*: adabin, irnet"
        ),
        _choices_told("small", ["table=small", "quantizer=bonn"], USUAL),
    ):
        raise refused
    for own in (["quantizer=bonn", "quantizer.t_min=2"], ["seed=1"]):
        with (
            pytest.raises(ConfigCompositionException, match="Could not override"),
            _choices_told("small", own, USUAL),
        ):
            raise refused
