"""A number belongs to its run: folders, checkpoints and data that are another run's are refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from bnnbench.records.fingerprint import fingerprint, run_name
from bnnbench.records.signature import BadCheckpoint, read_checkpoint, signature_of
from bnnbench.records.store import read_result, write_json
from bnnbench.runs import build, run
from bnnbench.runs.reuse import Run, settle
from bnnbench.runs.teacher import check_classes

Compose = Callable[..., DictConfig]


@pytest.fixture
def tiny(compose: Compose, tmp_path: Path) -> Callable[..., DictConfig]:
    """A run of one epoch on 64 made-up CIFAR images; ``tiny(level, ...)`` chooses their grey."""

    def composed(level: int, *overrides: str) -> DictConfig:
        folder = tmp_path / f"data{level}"
        folder.mkdir(exist_ok=True)
        images = np.full((64, 32, 32, 3), level, dtype=np.uint8)
        images += np.arange(64, dtype=np.uint8)[:, None, None, None]
        labels = np.arange(64) % 10
        arrays = {"train_images": images, "train_labels": labels}
        arrays |= {"test_images": images[:20], "test_labels": labels[:20]}
        np.savez(folder / "cifar10.npz", **arrays)
        common = ["dataset=cifar10", "backbone=resnet20", "quantizer=xnor", "logger=none"]
        common += ["trainer.max_epochs=1", "dataset.batch_size=32", f"paths.data_dir={folder}"]
        return compose(*common, *overrides)

    return composed


def trained(cfg: DictConfig) -> Path:
    """The last checkpoint of the run of ``cfg``."""
    folder = Path(cfg.paths.output_dir)
    folder.mkdir(exist_ok=True)
    run.execute(cfg, folder, quiet=True)
    return folder / "checkpoints" / "last.ckpt"


def test_a_folder_belongs_to_one_run(tiny: Any) -> None:
    first = tiny(7)
    trained(first)
    other = tiny(7, "seed=1")
    folder = Path(other.paths.output_dir)
    for refused in (
        lambda: settle(Run(other, folder)),
        lambda: run.execute(other, folder, quiet=True),
    ):
        with pytest.raises(ValueError, match=f"holds another run, {run_name(first)}.*force=true"):
            refused()
    (folder / "result.json").unlink()  # a cut one as well
    with pytest.raises(ValueError, match="holds another run"):
        settle(Run(other, folder))
    trained(tiny(7, "seed=1", "force=true"))
    assert (read_result(folder) or {})["seed"] == 1


def test_a_checkpoint_of_another_run_is_not_gone_on_from(tiny: Any, tmp_path: Path) -> None:
    foreign = trained(tiny(7, "quantizer=dorefa", f"paths.output_dir={tmp_path}/foreign"))
    cfg = tiny(7)
    last = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    shutil.copy(foreign, last)
    with pytest.raises(BadCheckpoint, match=r"quantizer\.name=dorefa, here xnor"):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)
    content = torch.load(foreign, weights_only=True)
    del content["bnnbench"]
    torch.save(content, last)
    with pytest.raises(BadCheckpoint, match="does not say which run it belongs to"):
        run.execute(cfg, Path(cfg.paths.output_dir), quiet=True)


def test_a_cut_run_goes_on_with_its_own_data_alone(tiny: Any) -> None:
    cfg = tiny(7, "trainer.max_epochs=1")
    last = trained(cfg)
    folder = Path(cfg.paths.output_dir)
    (folder / "result.json").unlink()
    with pytest.raises(ValueError, match="other data of the same name"):
        run.execute(tiny(9), folder, quiet=True)
    (folder / "identity.json").unlink()  # the checkpoint knows as well
    with pytest.raises(BadCheckpoint, match="other data of the same name"):
        run.execute(tiny(9), folder, quiet=True)
    (folder / "identity.json").unlink()
    run.execute(tiny(7), folder, quiet=True)
    stamp = signature_of(read_checkpoint(last)).data_stamp  # pyright: ignore
    assert (read_result(folder) or {})["data_stamp"] == stamp is not None


def test_a_finished_run_on_other_data_leaves_the_first_alone(tiny: Any, tmp_path: Path) -> None:
    def placed(level: int) -> DictConfig:
        cfg = tiny(level)
        cfg.paths.output_dir = f"{cfg.paths.runs_dir}/{run_name(cfg)}"
        Path(cfg.paths.output_dir).mkdir(parents=True, exist_ok=True)
        return cfg

    first = placed(7)
    folder = Path(first.paths.output_dir)
    assert settle(Run(first, folder)).folder == folder
    trained(first)
    assert settle(Run(placed(7), folder)).folder == folder
    second = placed(9)
    beside = settle(Run(second, folder)).folder
    assert beside.name.startswith(f"{folder.name}_data")
    assert second.paths.output_dir == str(beside)
    trained(second)
    results = [read_result(place) or {} for place in (folder, beside)]
    assert results[0]["fingerprint"] == results[1]["fingerprint"]
    assert results[0]["data_stamp"] != results[1]["data_stamp"]
    assert [result["name"] for result in results] == [folder.name, beside.name]
    forced = placed(9)
    forced.force = True  # replaces its own run, not that on other data
    assert settle(Run(forced, folder)).folder == beside
    chosen = placed(9)
    with pytest.raises(ValueError, match="holds this run on other data"):
        settle(Run(chosen, Path(shutil.copytree(folder, tmp_path / "out"))))


def test_a_checkpoint_is_evaluated_without_being_told_what_it_is(
    tiny: Any, compose: Compose, tmp_path: Path
) -> None:
    cfg = tiny(7, "backbone.shortcut=conv", "quantizer=dorefa", "quantizer.activation_bits=2")
    last = trained(cfg)
    expected = (read_result(cfg.paths.output_dir) or {})["metrics"]["last"]["test/acc"]
    typed = ["train=false", f"ckpt_path={last}"]
    data = [f"paths.data_dir={cfg.paths.data_dir}", "logger=none"]
    found = run.execute(compose(*typed, *data), tmp_path, quiet=True, typed=typed)
    assert found == pytest.approx(expected)
    for agreeing in ("quantizer=dorefa", "backbone.shortcut=conv", "dataset=cifar10", "seed=0"):
        more = [*typed, agreeing]
        run.execute(compose(*more, *data), tmp_path, quiet=True, typed=more)


def test_what_contradicts_a_checkpoint_is_refused(
    tiny: Any, compose: Compose, tmp_path: Path
) -> None:
    last = trained(tiny(7, "quantizer=dorefa", "quantizer.activation_bits=2"))
    for contradiction in (
        "quantizer=xnor",
        "quantizer=dorefa quantizer.activation_bits=4",
        "backbone=resnet18",
        "dataset=digits",
        "backbone.shortcut=conv",
        "seed=3",
        "dataset=cifar10 dataset.mean=[0.5,0.5,0.5]",
    ):
        typed = ["train=false", f"ckpt_path={last}", *contradiction.split()]
        said = f"^{re.escape(typed[-1])}: .* was trained with .*leave this override out"
        with pytest.raises(ValueError, match=said):
            run.execute(compose(*typed, "logger=none"), tmp_path, quiet=True, typed=typed)


def test_an_evaluation_says_what_it_saw(
    tiny: Any, compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny(7)
    last = trained(cfg)
    typed = ["train=false", f"ckpt_path={last}", f"dataset.data_dir={cfg.paths.data_dir}"]
    limited = [*typed, "+trainer.limit_test_batches=1", "logger=none"]
    run.execute(compose(*limited), tmp_path, quiet=True, typed=typed)
    assert "on 20 test images" in capsys.readouterr().out  # one batch is all of this set
    tiny(9)
    other = ["train=false", f"ckpt_path={last}", f"dataset.data_dir={tmp_path}/data9"]
    run.execute(compose(*other, "logger=none"), tmp_path, quiet=True, typed=other)
    assert "not the data it was trained on" in capsys.readouterr().out
    assert len(list(tmp_path.glob("evaluation*.json"))) == 2
    with pytest.raises(ValueError, match="holds a run"):
        run.execute(compose(*typed), Path(cfg.paths.output_dir), quiet=True, typed=typed)
    with pytest.raises(ValueError, match="an evaluation trains nothing"):
        run.execute(compose(*typed), tmp_path, quiet=True, typed=[*typed, "init_from=x"])


def test_a_training_of_no_other_length_does_not_take_ckpt_path(tiny: Any, tmp_path: Path) -> None:
    last = trained(tiny(7))
    with pytest.raises(ValueError, match=r"give a larger trainer\.max_epochs"):
        run.execute(tiny(7, f"ckpt_path={last}"), tmp_path, quiet=True)


def test_checkpoints_hold_what_they_are(tiny: Any) -> None:
    cfg = tiny(7)
    last = trained(cfg)
    for name in ("last", "best"):
        found = signature_of(read_checkpoint(last.with_name(f"{name}.ckpt")))
        assert found is not None
        assert (found.name, found.fingerprint) == (run_name(cfg), fingerprint(cfg))
        assert found.config["quantizer"]["name"] == "xnor"
        assert found.config["seed"] == 0
        assert "data_dir" not in found.config["dataset"]
        assert found.classes[:2] == ["airplane", "automobile"]
        assert found.mean == pytest.approx([0.4914, 0.4822, 0.4465])
        assert len(found.std) == 3
        assert (found.data_stamp or "").startswith("sha256:")


def test_rot_in_a_checkpoint_is_neither_evaluated_nor_gone_on_from(
    tiny: Any, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = tiny(7)
    last = trained(cfg)
    content = torch.load(last, weights_only=True)
    content["state_dict"]["net.conv1.weight"][0, 0, 0, 0] += 1e-3
    torch.save(content, last)
    with pytest.raises(BadCheckpoint, match=r"net\.conv1\.weight"):
        run.execute(compose("train=false", f"ckpt_path={last}"), tmp_path, quiet=True)
    with pytest.raises(BadCheckpoint, match=r"net\.conv1\.weight"):
        build.build_task(tiny(7, f"init_from={last}"))
    result = Path(cfg.paths.output_dir) / "result.json"
    before = json.loads(result.read_text())["metrics"]
    result.unlink()
    run.execute(tiny(7), Path(cfg.paths.output_dir), quiet=True)
    assert "net.conv1.weight" in caplog.text
    assert json.loads(result.read_text())["metrics"] == before  # trained anew, from the beginning


def test_a_teacher_s_weights_are_its_folder_s_own(tiny: Any, tmp_path: Path) -> None:
    own = tiny(7, "quantizer=fp32", f"paths.output_dir={tmp_path}/own")
    foreign = trained(tiny(7, "quantizer=fp32", "seed=1", f"paths.output_dir={tmp_path}/foreign"))
    shutil.copy(foreign, trained(own))
    taught = tiny(7, "loss=kd", "teacher=run", f"teacher.folder={tmp_path}/own")
    with pytest.raises(BadCheckpoint, match="not to the one whose result lies beside it"):
        trained(taught)


def test_a_teacher_saw_the_same_images(tiny: Any, tmp_path: Path) -> None:
    trained(tiny(7, "quantizer=fp32", f"paths.output_dir={tmp_path}/own"))
    taught = ["loss=kd", "teacher=run", f"teacher.folder={tmp_path}/own"]
    with pytest.raises(ValueError, match=r"saw images with dataset\.mean"):
        trained(tiny(7, *taught, "dataset.mean=[0.1,0.2,0.3]"))
    with pytest.raises(ValueError, match="has to know the same classes"):
        check_classes(tiny(7, *taught), ["cat", "dog"])


def test_an_unknown_stamp_says_nothing(tiny: Any) -> None:
    """A result from before stamps is reused as it is."""
    cfg = tiny(7)
    trained(cfg)
    folder = Path(cfg.paths.output_dir)
    write_json(folder / "result.json", (read_result(folder) or {}) | {"data_stamp": None})
    assert settle(Run(tiny(9), folder)).folder == folder
