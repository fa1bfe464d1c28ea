"""Around Hydra: a table is a sweep."""

import pytest

from bnnbench.sweep.cli import ensure_multirun


@pytest.mark.parametrize(
    ("arguments", "sweeps"),
    [
        ("table=small scale=demo", True),
        ("quantizer=adabin table=small", True),
        ("table=none", False),
        ("table=small table=none", False),
        ("quantizer=adabin", False),
        ("dataset=table=small", False),
        ("table=small --cfg job", False),
        ("table=small --cfg=job", False),
        ("table=small -h", False),
        ("-m table=small", False),
        ("table=small --multirun", False),
    ],
)
def test_a_table_sweeps_without_m(arguments: str, sweeps: bool) -> None:
    argv = ["train.py", *arguments.split()]
    expected = ["train.py", "-m", *argv[1:]] if sweeps else argv
    assert ensure_multirun(argv) == expected
