"""Around Hydra: a table is a sweep."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException

from bnnbench.sweep.cli import check_sweeper, ensure_multirun, valid_keys, with_home
from hydra_plugins.bnnbench_sweeper._plan import _splitter

CONF = Path(__file__).parents[2] / "conf"


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
        ("hydra/launcher=submitit_slurm", "hydra-submitit-launcher"),
        ("hydra/launcher=submitit_local", "hydra-submitit-launcher"),
        ("hydra/launcher=ray", "hydra-ray-launcher"),
        ("hydra/launcher=rq", "hydra-rq-launcher"),
        ("hydra/sweeper=optuna", "hydra-optuna-sweeper"),
        ("hydra/sweeper=ax", "hydra-ax-sweeper"),
        ("hydra/sweeper=nevergrad", "hydra-nevergrad-sweeper"),
        ("hydra/launcher=workrs", None),
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
    with pytest.raises(SystemExit, match=r"-m <key>=<a>,<b>, or .* conf/table/<name>\.yaml"):
        check_sweeper(["train.py", *words.split()])


@pytest.mark.parametrize(
    "words", ["hydra/sweeper=basic hydra.sweeper.params.x=1", "hydra.sweeper.max_batch_size=1"]
)
def test_other_sweepers_keep_their_params(words: str) -> None:
    check_sweeper(["train.py", "-m", *words.split()])


@pytest.mark.parametrize(
    "word", ["recipe.lr=interval(0.1,1)", "+recipe.x=interval(1,2)", "seed=tag(a,interval(0,9))"]
)
def test_an_interval_says_to_list_values_or_what_to_install(word: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        with pytest.raises(ValueError, match=r"=<a>,<b>; .*pip install hydra-optuna-sweeper"):
            _splitter(loader)([word])


def test_home_is_written_out_where_a_value_begins_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    argv = ["train.py", "a=~/x,~/y", "b=~", "~c", "d=x~/y", "e=~f"]
    assert with_home(argv) == [
        *("train.py", "a=/home/ada/x,/home/ada/y", "b=/home/ada", "~c", "d=x~/y", "e=~f")
    ]
