"""Around Hydra: a table is a sweep."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.types import RunMode

from bnnbench.sweep.cli import (
    check_launcher,
    check_sweeper,
    ensure_multirun,
    left_to_cells,
    valid_keys,
    with_home,
)
from hydra_plugins.bnnbench_sweeper._plan import splitter

App = Any  # the fixture's class stands in conftest.py, which is not to be imported

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("arguments", "sweeps"),
    [
        ("table=small scale=demo", True),
        ("quantizer=adabin table=small", True),
        ("table=none", False),
        ("hparams_search=recipe dataset.val_fraction=0.1", True),
        ("hparams_search=none quantizer=adabin", False),
        ("hparams_search.trials=3", False),
        ("hparams_search=recipe --cfg job", False),
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


@pytest.mark.parametrize(
    ("typed", "passed"),
    [
        ("quantizer=a,b -m seed=0", "quantizer=a,b seed=0 -m"),
        ("a=1 --cfg job b=2 --resolve c=3", "a=1 b=2 c=3 --cfg job --resolve"),
        ("a=1 -m b=2 --config-dir x=y", "a=1 b=2 -m --config-dir x=y"),
        ("a=1 --info b=2", "a=1 b=2 --info"),
        ("a=1 --info all b=2", "a=1 b=2 --info all"),
        ("--cfg job a=1 b=2", "--cfg job a=1 b=2"),
        ("a=1 b=2 -m", "a=1 b=2 -m"),
        ("table=x --package p seed=1", "-m table=x seed=1 --package p"),
        ("-m", "-m"),
        ("", ""),
    ],
)
def test_flags_may_stand_between_overrides(typed: str, passed: str) -> None:
    argv = ["train.py", *typed.split()]
    assert ensure_multirun(argv) == ["train.py", *passed.split()]
    parsed = get_args_parser().parse_args(ensure_multirun(argv)[1:])  # Hydra's own
    assert len(parsed.overrides) == sum("=" in word for word in passed.replace("x=y", "").split())


def start(word: str) -> None:
    """Compose as Hydra does within `main()`, and end as it ends: within the handler."""
    with valid_keys(), initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            compose("train", [word], return_hydra_config=True)
        except MissingConfigException:
            raise SystemExit(1)  # noqa: B904


@pytest.mark.parametrize(
    ("word", "package"),
    [
        ("hydra/launcher=ray", "'bnnbench[ray]'"),
        ("hydra/launcher=rq", "hydra-rq-launcher"),
        ("hydra/sweeper=ax", "hydra-ax-sweeper"),
        ("hydra/sweeper=nevergrad", "hydra-nevergrad-sweeper"),
        ("quantizer=optuna", None),
    ],
)
def test_a_missing_plugin_names_its_package(
    word: str, package: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        start(word)
    told = capsys.readouterr().err
    assert told.endswith(f"pip install {package}\n") if package else not told


@pytest.mark.parametrize(
    ("word", "meant"),
    [("quantizer=xnorr", "quantizer=xnor"), ("hydra/launcher=workrs", "hydra/launcher=workers")],
)
def test_an_option_that_is_not_there_names_the_nearest(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        start(word)
    assert capsys.readouterr().err == f"Did you mean {meant}?\n"


def refuse(word: str) -> None:
    """Exit while an error is handled, as Hydra does."""
    try:
        raise MissingConfigException("none", missing_cfg_file=f"{word}.yaml")
    except MissingConfigException:
        sys.exit(1)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("hydra/launcher/ray", "pip install 'bnnbench[ray]'"),
        ("hydra/sweeper/optuna", "hparams_search=<name> dataset.val_fraction=0.1"),
    ],
)
def test_plugins_that_may_be_installed(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), valid_keys():
        refuse(word)
    assert capsys.readouterr().err.endswith(f"{hint}\n")


@pytest.mark.parametrize(
    "words",
    [
        "-m hydra.sweeper.params.x=1,2",
        "hydra.sweeper.params.recipe.lr=1",
        "-m +hydra.sweeper.params={recipe.lr:1}",
        "-m ++hydra.sweeper.params.x=1",
        "-m hydra/sweeper=bnnbench +hydra.sweeper.params.x=1",
    ],
)
def test_params_of_the_sweeper_say_what_to_type_instead(words: str) -> None:
    with pytest.raises(
        SystemExit, match=r"-m <key>=<a>,<b>, .* conf/table/<name>\.yaml, or .*hparams"
    ):
        check_sweeper(["train.py", *words.split()])


@pytest.mark.parametrize(
    "words", ["hydra/sweeper=basic hydra.sweeper.params.x=1", "hydra.sweeper.max_batch_size=1"]
)
def test_other_sweepers_keep_their_params(words: str) -> None:
    check_sweeper(["train.py", "-m", *words.split()])


@pytest.mark.parametrize(
    "word", ["recipe.lr=interval(0.1,1)", "+recipe.x=interval(1,2)", "seed=tag(a,interval(0,9))"]
)
def test_an_interval_says_to_list_values_or_to_search(word: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        with pytest.raises(ValueError, match=r"=<a>,<b>; .*hparams_search=recipe"):
            splitter(loader)([word])


@pytest.fixture
def loader() -> Iterator[ConfigLoader]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


OWN = "dataset.train_difficult=false"  # a key of detection sets, which the usual one is none of


def test_a_sweeps_line_may_hold_keys_of_its_cells_options(loader: ConfigLoader) -> None:
    words = ["dataset=shapes,voc_folder", OWN, "seed=3"]
    with pytest.raises(ConfigCompositionException):
        loader.load_configuration("train", words, RunMode.MULTIRUN)
    with left_to_cells():
        line = loader.load_configuration("train", words, RunMode.MULTIRUN)
        assert (line.dataset.name, line.seed) == ("digits", 3)
        cell = loader.load_sweep_config(line, ["dataset=shapes", OWN])
    assert cell.dataset.train_difficult is False


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        ([OWN], RunMode.RUN),
        (["hydra.verbos=true"], RunMode.MULTIRUN),
        (["hydra.job.nam=x", OWN], RunMode.MULTIRUN),
        (["quantizer=nosuch"], RunMode.MULTIRUN),
    ],
)
def test_single_runs_and_hydras_own_keys_are_judged_at_once(
    loader: ConfigLoader, words: list[str], mode: RunMode
) -> None:
    with left_to_cells(), pytest.raises((ConfigCompositionException, MissingConfigException)):
        loader.load_configuration("train", words, mode)


def test_a_key_that_no_cell_has_is_told_with_the_valid_ones(app: App) -> None:
    run = app.run("-m", "quantizer=fp32,adabin", "recipe.lrr=1")
    assert (run.returncode, app.executed()) == (1, [])
    assert "Did you mean 'lr'? Valid keys of recipe: epochs, lr, name" in run.stderr


def test_a_key_of_the_cells_own_option_is_theirs(app: App) -> None:
    app.run("-m", "quantizer=choice(fp32)", "quantizer.weight.kind=sign").check_returncode()
    (cell,) = app.manifest()["cells"]
    assert cell["overrides"]["quantizer.weight.kind"] == "sign"


def test_cells_without_a_typed_key_are_named(app: App) -> None:
    run = app.run("-m", "quantizer=fp32,xnor,boom", "quantizer.weight.kind=sign")
    assert (run.returncode, app.executed()) == (1, [])
    assert "quantizer=xnor, quantizer=boom: no key quantizer.weight.kind" in run.stderr


def test_home_is_written_out_where_a_value_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    argv = ["train.py", "a=~/x,~/y", "b=~", "~c", "d=x~/y", "e=~f"]
    assert with_home(argv) == [
        *("train.py", "a=/home/ada/x,/home/ada/y", "b=/home/ada", "~c", "d=x~/y", "e=~f")
    ]


def test_a_launcher_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_launcher(["train.py", "hydra/launcher=submitit_slurm", "hydra/launcher=workers"])
    monkeypatch.setattr("bnnbench.sweep.cli.find_spec", lambda name: None)
    check_launcher(["train.py", "hydra/launcher=workers"])
    for name in ("submitit_slurm", "submitit_local"):
        with pytest.raises(SystemExit, match=rf"^hydra/launcher={name} needs .*bnnbench\[slurm\]"):
            check_launcher(["train.py", "-m", f"hydra/launcher={name}"])
