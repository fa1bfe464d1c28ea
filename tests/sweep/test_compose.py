"""The configs that a sweep plans with are those that Hydra composes for its jobs."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnnbench import resolvers
from bnnbench.records.fingerprint import fingerprint
from bnnbench.sweep.expand import expand_table
from hydra_plugins.bnnbench_sweeper._compose import Composer
from hydra_plugins.bnnbench_sweeper._plan import splitter

CONF = Path(__file__).parents[2] / "conf"
TABLES = sorted(file.stem for file in (CONF / "table").glob("*.yaml") if file.stem != "none")
Compose = Callable[[Sequence[str]], DictConfig]
Pair = tuple[Compose, Compose]  # the sweeper's way from overrides to a config, and Hydra's


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    resolvers.register()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def pair(loader: ConfigLoader) -> Pair:
    return both(loader)


def both(loader: ConfigLoader, *hydra_words: str) -> Pair:
    line = loader.load_configuration("train", list(hydra_words), RunMode.MULTIRUN)

    def by_hydra(typed: Sequence[str]) -> DictConfig:
        cfg = loader.load_sweep_config(line, list(typed))
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        OmegaConf.set_struct(cfg, True)
        return cfg

    return Composer(line, loader), by_hydra


def outcome(compose: Compose, typed: Sequence[str]) -> Any:
    """All that can be told of a config: raw, resolved, its flags and its name; or the refusal."""
    try:
        cfg = compose(typed)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return type(error), str(error)
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    return raw, list(raw), _resolved(cfg), OmegaConf.is_struct(cfg), _told(fingerprint, cfg)


def _resolved(cfg: DictConfig) -> Any:
    """What of the config can be resolved outside a job, group by group."""
    keys = [str(key) for key in cfg if key != "paths"]
    return {key: _told(lambda cfg, key=key: _value(cfg[key]), cfg) for key in keys}


def _value(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _told(tell: Callable[[DictConfig], Any], cfg: DictConfig) -> Any:
    try:
        return tell(cfg)
    except Exception as error:  # of a file that is not there, or of a job that does not run
        return type(error)


@pytest.mark.parametrize("scale", ["demo", "quick", "full"])
@pytest.mark.parametrize("table", TABLES)
def test_every_cell_of_every_table(loader: ConfigLoader, table: str, scale: str) -> None:
    files = (CONF / "table" / f"{table}.yaml", CONF / "scale" / f"{scale}.yaml")
    rows, size = (yaml.safe_load(file.read_text()) for file in files)
    quick, by_hydra = both(loader)
    cells = expand_table(rows, size, [], splitter(loader))
    once = {str(cell | {"seed": None}): cell for cell in cells}.values()  # with one of its seeds
    for typed in [[f"{key}={value}" for key, value in cell.items()] for cell in once]:
        assert outcome(quick, typed) == outcome(by_hydra, typed), typed


FINE = [
    "",
    "quantizer=xnor seed=3",
    "seed=3 quantizer=xnor seed=4",
    "recipe=native quantizer=adabin dataset=cifar10 backbone=resnet20 recipe.lr=0.5",
    "recipe=two_step trainer.max_epochs=4 recipe.first=0.25",
    "recipe/structure@_global_=native/adabin_cifar10_resnet20",
    "~recipe.gamma",
    "~logger",
    "~callbacks.reseed seed=2",
    "++trainer.max_steps=3 seed=1",
    "+dataset.workers=4 ++dataset.workers=5",
    "seed=null tags=[a,b] force=True",
    "quantizer.t_max=3 quantizer={t_max:5}",
    "loss={terms:{}} loss=bonn",
    "loss.label_smoothing=0.1 loss=bonn",
    "dataset.val_fraction=${seed} seed=0",
    "trainer.max_epochs='${oc.select:seed,3}'",
    "seed='3' backbone.shortcut=\"block\"",
    "backbone.first=${quantizer.last} quantizer=bonn",
    "+quantizer@second=xnor second.name=again",
    "hydra.verbose=true",
    "++hydra.job.env_set.X='1' seed=2",
    "hydra/launcher=basic seed=2",
    "trainer=cpu trainer.precision=bf16-mixed",
    "paths.log_dir=/tmp/elsewhere paths.data_dir=/tmp/data",
    "teacher=timm teacher.model=resnet34 loss=kd",
    "recipe.lr=1e-3 recipe.lr=.5",
    "recipe.lr=fast",
    "seed=1.0 force=null",
    "callbacks={} callbacks.history=null",
    "+callbacks.ema={_target_:lightning.pytorch.callbacks.EMAWeightAveraging}",
    "init_from=/nowhere/${quantizer.name}.ckpt",
    "seed=",
]
REFUSED = [
    "~callbacks.absent",
    "~seed=1",
    "+trainer.limit_train_batches=2 +trainer.limit_train_batches=3",
    "+seed=3",
    "tags=[] recipe.groups={scale:{weight_decay:0.0}}",
    "backbone.absent=1",
    "absent=1",
    "seed.deep=1",
    "quantizer=absent seed=1",
    "quantizer@other=xnor",
    "+experiment=absent",
    "experiment=null debug=null",
    "tags=a b=c=d",
]


@pytest.mark.parametrize("line", [*FINE, *REFUSED])
def test_whatever_is_typed(pair: Pair, line: str) -> None:
    quick, by_hydra = pair
    for typed in ([], line.split(), []):  # a cell leaves nothing behind in the next one
        assert outcome(quick, typed) == outcome(by_hydra, typed)


def test_cells_share_no_values(pair: Pair) -> None:
    quick, by_hydra = pair
    first = quick(["tags=[a]", "recipe.lr=0.5"])
    first.recipe.groups = {"scale": {}}
    first.tags.append("b")
    assert outcome(quick, ["tags=[a]"]) == outcome(by_hydra, ["tags=[a]"])


def test_what_was_typed_for_hydra_holds(loader: ConfigLoader, tmp_path: Path) -> None:
    """A folder of the user's own groups beside conf/ too."""
    for group, name in (("quantizer", "own"), ("seed", "lucky")):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text("name: own\nshortcut: block")
    quick, by_hydra = both(loader, f"hydra.searchpath=[file://{tmp_path}]", "hydra.verbose=true")
    for line in ("quantizer=own seed=1", "quantizer=own", "+seed=lucky", "quantizer.name=x"):
        assert outcome(quick, line.split()) == outcome(by_hydra, line.split())


def test_random_lines(pair: Pair) -> None:
    """A hundred lines of the pieces that the others are made of, in any order."""
    pieces = [word for line in FINE for word in line.split()]
    draw = random.Random(0)
    quick, by_hydra = pair
    for _ in range(100):
        typed = draw.sample(pieces, draw.randint(2, 5))
        assert outcome(quick, typed) == outcome(by_hydra, typed), typed


def test_each_choice_is_composed_once(
    loader: ConfigLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, _ = both(loader)
    composed: list[list[str]] = []
    by_hydra = type(loader).load_sweep_config
    monkeypatch.setattr(
        type(loader),
        "load_sweep_config",
        lambda self, line, typed: composed.append(typed) or by_hydra(self, line, typed),
    )
    for seed in range(5):
        for name in ("xnor", "bnn"):
            quick([f"seed={seed}", f"quantizer={name}", "recipe.lr=0.5"])
    assert composed == [["quantizer=xnor"], ["quantizer=bnn"]]
