"""Runs that start from their full-precision twin: trained once, shared, and refused where not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from bnnbench import build_backbone
from bnnbench.callbacks.history import History
from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.position import Position, read_position
from bnnbench.records.store import last_weights, read_result
from bnnbench.runs import run, training, twin
from bnnbench.runs.preflight import check_settings, check_stages, preflight
from bnnbench.runs.reuse import Run
from bnnbench.runs.twin import start_from, trained_twin, twin_of

Compose = Callable[..., DictConfig]
START = "recipe.start=twin"
STRUCTURE = ["backbone.shortcut=conv", "backbone.nonlinearity=hardtanh", "backbone.head_norm=true"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Tensor]]]:
    """Name and weights of the network of each training, as it begins."""
    found: list[tuple[str, dict[str, Tensor]]] = []
    original = training.build_trainer

    def spy(cfg: DictConfig, folder: Path, quiet: bool, name: str, *rest: Any) -> Any:
        trainer = original(cfg, folder, quiet, name, *rest)
        fit = trainer.fit

        def recorded(task: Any, *arguments: Any, **options: Any) -> None:
            found.append((name, {k: v.clone() for k, v in task.net.state_dict().items()}))
            fit(task, *arguments, **options)

        trainer.fit = recorded
        return trainer

    monkeypatch.setattr(training, "build_trainer", spy)
    return found


def execute(cfg: DictConfig, tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "logs" / "runs" / run_name(cfg)
    cfg.paths.output_dir = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.execute(cfg, folder, quiet=True)
    result = read_result(folder)
    assert result is not None
    return result


def test_a_run_says_that_its_twin_is_trained_first(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    cfg = compose(*short, "quantizer=xnor", *STRUCTURE, START)
    cfg.paths.output_dir = str(tmp_path / "own")
    (tmp_path / "own").mkdir()

    def train(run: Run) -> None:
        assert read_position(tmp_path / "own") == Position(first=str(run.folder))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        trained_twin(cfg, train)


def test_no_process_of_a_start_trains_a_twin_that_another_job_trains(
    compose: Compose, short: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two waits, as the first one does, which has the lock to wait for."""
    cfg = compose(*short, "quantizer=xnor", *STRUCTURE, START)
    cfg.paths.output_dir = str(tmp_path / "own")
    monkeypatch.setenv("SLURM_PROCID", "1")
    answers = iter([False, False, True])
    monkeypatch.setattr(twin, "is_finished", lambda run: next(answers))
    joined: list[Run] = []
    assert trained_twin(cfg, joined.append).name == twin_of(cfg).name
    assert joined == []


def test_two_methods_share_one_twin_and_start_from_its_weights(
    compose: Compose, short: list[str], tmp_path: Path, started: list[tuple[str, dict[str, Tensor]]]
) -> None:
    cfgs = [
        compose(*short, f"quantizer={name}", *STRUCTURE, START) for name in ("xnor", "reactnet")
    ]
    results = [execute(cfg, tmp_path) for cfg in cfgs]
    twin = twin_of(cfgs[0])
    assert [name for name, _ in started] == [twin.name, *(r["name"] for r in results)]
    assert {result["started_from"] for result in results} == {twin.name}
    trained = torch.load(last_weights(twin.folder), weights_only=True)["state_dict"]
    for _, weights in started[1:]:
        common = [key for key in weights if f"net.{key}" in trained]
        assert len(common) > 100
        assert all(torch.equal(weights[key], trained[f"net.{key}"]) for key in common)
    record = read_result(twin.folder)
    assert record is not None
    assert "started_from" not in record
    assert record["twin_of"] == results[0]["name"]
    assert all("twin_of" not in result for result in results)
    assert (record["bits"], record["epochs"]) == ({"w": 32, "a": 32}, 3)


@pytest.mark.parametrize("kind", ["maxout", "prelu", "rprelu", "quantized_rprelu"])
def test_a_binary_network_begins_with_slopes_of_its_own(tmp_path: Path, kind: str) -> None:
    """Behind a slope below zero every sign would be +1."""
    options = {"num_classes": 3, "image_size": 8, "nonlinearity": kind, "shortcut": "conv"}
    twin = build_backbone("resnet20", quantizer="fp32", **options)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.sub_(0.5)
    torch.save(
        {"state_dict": {f"net.{k}": v for k, v in twin.state_dict().items()}}, tmp_path / "w"
    )
    known = dict(twin.named_parameters())
    for fresh in (True, False):
        net = build_backbone("resnet20", quantizer="xnor", **options)
        before = {name: value.clone() for name, value in net.named_parameters()}
        start_from(net, tmp_path / "w", fresh)
        slopes = [name for name in before if "act" in name]
        assert len(slopes) >= 18
        for name, value in net.named_parameters():
            wanted = before if fresh and name in slopes else known
            assert torch.equal(value, wanted[name]), name


FAST = ["quantizer=xnor", "backbone=resnet20", "dataset=cifar10", "recipe=fast"]


@pytest.mark.parametrize(
    ("typed", "otherwise"),
    [
        ([], ["dataset.batch_size=64"]),
        ([], ["dataset.resize=[]", "dataset.seed=0", "trainer.gradient_clip_val=null"]),
        (["recipe.batch_size.cifar10=32"], ["dataset.batch_size=32"]),
        (["recipe.resize=[[0.5,0.3]]"], ["dataset.resize=[[0.5,0.3]]"]),
        (["+recipe.twin.seed=5"], ["+recipe.twin.seed=5", "dataset.seed=0"]),
        (["seed=3"], ["seed=3", "dataset.seed=3", "callbacks.reseed.seed=3"]),
    ],
)
def test_one_run_has_one_twin_however_it_is_typed(
    compose: Compose, typed: list[str], otherwise: list[str]
) -> None:
    one, other = compose(*FAST, *typed), compose(*FAST, *otherwise)
    assert run_name(one) == run_name(other)
    assert twin_of(one).name == twin_of(other).name
    assert twin_of(one).cfg.dataset.batch_size == 128  # unified's


def test_the_twin_has_what_a_data_set_that_was_added_says(compose: Compose) -> None:
    added = ["dataset.name=mine", "+recipe.epochs.mine=2", "+recipe.batch_size.mine=32"]
    twin = twin_of(compose(*FAST, *added)).cfg
    assert (twin.dataset.batch_size, twin.trainer.max_epochs) == (32, 2)


@pytest.mark.parametrize("without", ["callbacks.last=null", "+trainer.enable_checkpointing=false"])
@pytest.mark.parametrize("recipe", [START, "recipe=two_step"])
def test_a_run_that_would_start_from_no_checkpoint_is_refused(
    compose: Compose, short: list[str], without: str, recipe: str
) -> None:
    with pytest.raises(ValueError, match=r"checkpoint, (which the next|and the run)"):
        check_settings(compose(*short, "quantizer=xnor", recipe, without))


@pytest.mark.parametrize(
    "mistake",
    ["trainer.max_epochs=-1", "trainer.max_epochs=many", "seed=-3", "callbacks.last=null"],
)
def test_a_mistake_in_what_the_twin_has_otherwise_is_told_before_it_trains(
    compose: Compose, short: list[str], mistake: str
) -> None:
    cfg = compose(*short, "quantizer=xnor", START, f"+recipe.twin.{mistake}")
    with pytest.raises(ValueError, match=r"recipe\.twin"):
        check_stages(cfg)


def test_a_finished_run_goes_on_without_a_twin_of_the_longer_length(
    compose: Compose, short: list[str], tmp_path: Path, started: list[tuple[str, dict[str, Tensor]]]
) -> None:
    words = [*short, "quantizer=xnor", *STRUCTURE, START]
    before = execute(compose(*words, "trainer.max_epochs=1"), tmp_path)
    del started[:]
    last = last_weights(tmp_path / "logs" / "runs" / before["name"])
    longer = compose(*words, "trainer.max_epochs=2", f"ckpt_path={last}")
    preflight([longer], [tmp_path])
    result = execute(longer, tmp_path)
    assert [name for name, _ in started] == [result["name"]]
    assert result["started_from"] == before["started_from"]
    assert (result["epochs"], result["continued"]["name"]) == (2, before["name"])


def test_a_checkpoint_that_lies_elsewhere_costs_no_result(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its run started from is not known then, also beside a file that is no result."""
    cfg = compose("quantizer=xnor", START)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "result.json").write_text("{")
    monkeypatch.chdir(tmp_path / "a")
    for place in ("last.ckpt", "/last.ckpt", "b/last.ckpt"):
        cfg.ckpt_path = place
        assert run._start(cfg, None) == {}


def test_a_run_with_weights_of_its_own_needs_its_twin_no_more(
    compose: Compose,
    short: list[str],
    tmp_path: Path,
    started: list[tuple[str, dict[str, Tensor]]],
) -> None:
    cfg = compose(*short, "quantizer=xnor", *STRUCTURE, START)
    first = execute(cfg, tmp_path)
    twin = twin_of(cfg)
    shutil.rmtree(twin.folder)
    (tmp_path / "logs" / "runs" / first["name"] / "result.json").unlink()
    again = execute(cfg, tmp_path)
    assert again["started_from"] == twin.name
    assert again["metrics"] == first["metrics"]
    assert not twin.folder.exists()


def test_a_twin_without_weights_is_no_start_and_the_way_out_is_told(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    cfg = compose(*short, "trainer.max_epochs=1", "quantizer=xnor", *STRUCTURE, START)
    twin = trained_twin(cfg, lambda run: execute(run.cfg, tmp_path))
    last_weights(twin.folder).unlink()
    with pytest.raises(ValueError, match=rf"delete {re.escape(str(twin.folder))}"):
        trained_twin(cfg, lambda run: None)


def test_the_twin_is_the_full_precision_row_of_the_structure(
    compose: Compose, short: list[str]
) -> None:
    twin = twin_of(compose(*short, "quantizer=adabin", "recipe=fast", *STRUCTURE))
    row = compose(*short, "quantizer=fp32", *STRUCTURE)
    assert (twin.name, twin.fingerprint) == (run_name(row), fingerprint(row))
    linear = [word.replace("hardtanh", "identity") for word in STRUCTURE]
    twin = twin_of(compose(*short, "quantizer=xnor", "recipe=fast", *linear))
    relu = [word.replace("hardtanh", "relu") for word in STRUCTURE]
    assert twin.fingerprint == fingerprint(compose(*short, "quantizer=fp32", *relu))


@pytest.mark.parametrize(
    "typed",
    [
        *("quantizer=adabin", "recipe.lr=0.02", "loss=kurtosis", "recipe.batch_size.digits=32"),
        *("recipe.label_smoothing=0.1", "recipe.estimator_reach=0.5", "force=true"),
    ],
)
def test_what_is_the_method_s_or_the_recipe_s_leaves_the_twin(
    compose: Compose, short: list[str], typed: str
) -> None:
    base = [*short, "quantizer=xnor", *STRUCTURE, START]
    assert twin_of(compose(*base, typed)).fingerprint == twin_of(compose(*base)).fingerprint


@pytest.mark.parametrize(
    "typed",
    [
        *("seed=1", "trainer.max_epochs=2", "dataset.val_fraction=0.2", "backbone.downsample=conv"),
        *(
            "+recipe.twin.seed=1",
            "+recipe.twin.recipe.lr=0.02",
            "+recipe.twin.trainer.max_epochs=5",
        ),
    ],
)
def test_what_its_training_hangs_on_is_another_twin(
    compose: Compose, short: list[str], typed: str
) -> None:
    base = [*short, "quantizer=xnor", *STRUCTURE, START]
    assert twin_of(compose(*base, typed)).fingerprint != twin_of(compose(*base)).fingerprint


def test_a_cut_run_goes_on_and_its_twin_stays(
    compose: Compose,
    short: list[str],
    tmp_path: Path,
    started: list[tuple[str, dict[str, Tensor]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cfg = compose(*short, "quantizer=xnor", START)
    with monkeypatch.context() as patch:
        original = History.on_train_epoch_start

        def hook(self: Any, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 2 and "xnor" in trainer.default_root_dir:
                raise RuntimeError("cut")
            original(self, trainer, module)

        patch.setattr(History, "on_train_epoch_start", hook)
        with pytest.raises(RuntimeError, match="cut"):
            execute(cfg, tmp_path)
    result = execute(cfg, tmp_path)
    assert [name for name, _ in started].count(twin_of(cfg).name) == 1
    assert result["epochs"] == len(result["history"]["epoch"]) == 3
    assert result["started_from"] == twin_of(cfg).name


def test_two_steps_start_their_first_one(
    compose: Compose, short: list[str], tmp_path: Path, started: list[tuple[str, dict[str, Tensor]]]
) -> None:
    cfg = compose(*short, "quantizer=xnor", "recipe=two_step", "recipe.start=twin")
    result = execute(cfg, tmp_path)
    assert result["started_from"] == twin_of(cfg).name
    trained = torch.load(last_weights(twin_of(cfg).folder), weights_only=True)["state_dict"]
    first = started[1][1]
    key = next(key for key in first if key.endswith("conv1.weight"))
    assert torch.equal(first[key], trained[f"net.{key}"])
    assert not torch.equal(started[2][1][key], trained[f"net.{key}"])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["+recipe.twin.seed=1"], "would be without effect: set recipe.start=twin"),
        ([START, "init_from=a.ckpt"], "recipe.start=twin and init_from=a.ckpt are two starts"),
        ([START, "+recipe.twin.seeed=1"], "recipe.twin: there is no key seeed in the config"),
        ([START, "+recipe.twin.recipe.optimizer=bop"], "recipe.optimizer='bop'"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(
    compose: Compose, short: list[str], typed: list[str], said: str
) -> None:
    cfg = compose(*short, "quantizer=xnor", *typed)
    check: Callable[[Any], None] = check_settings if "init_from=a.ckpt" in typed else preflight
    with pytest.raises(ValueError, match=said):
        check(cfg if check is check_settings else [cfg])


def test_a_recipe_without_it_has_no_twin(
    compose: Compose, short: list[str], tmp_path: Path
) -> None:
    result = execute(compose(*short, "quantizer=xnor", "trainer.max_epochs=1"), tmp_path)
    assert "started_from" not in result
    assert len(list((tmp_path / "logs" / "runs").iterdir())) == 1
