"""How many workers, and a GPU for each."""

import time
from pathlib import Path

import joblib
import pytest
from omegaconf import OmegaConf

from bnnbench.records import gpus
from bnnbench.records.gpus import visible_gpus
from bnnbench.sweep import devices


@pytest.fixture(autouse=True)
def no_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, and none remembered."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(devices.WORKERS, raising=False)
    gpus._installed_gpus.cache_clear()


def install_gpus(folder: Path, count: int) -> None:
    tool = folder / "nvidia-smi"
    lines = "".join(f"echo 'GPU {i}: a card'; echo '  MIG 1g'; " for i in range(count))
    tool.write_text(f"#!/bin/sh\n{lines}\n")
    tool.chmod(0o755)


def test_one_worker_a_core_without_gpus() -> None:
    assert devices.workers() == joblib.cpu_count()


def test_one_worker_a_gpu(tmp_path: Path) -> None:
    install_gpus(tmp_path, 3)
    assert devices.workers() == 3
    assert devices.workers("cpu") == joblib.cpu_count()


@pytest.mark.parametrize(
    ("listed", "names"), [("4,7", ["4", "7"]), ("GPU-ab", ["GPU-ab"]), ("", []), ("1,-1,2", ["1"])]
)
def test_visible_gpus_are_those_the_environment_lists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listed: str, names: list[str]
) -> None:
    install_gpus(tmp_path, 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == names


@pytest.mark.parametrize(
    ("jobs", "cores", "found"),
    [
        (1, 2, 2),
        (2, 2, 2),
        (3, 2, 3),  # after 1.5 times what one takes, not after 2
        (4, 2, 2),
        (5, 2, 3),  # 3 and then 2: after 2.5
        (6, 2, 2),
        (3, 1, 1),
        (9, 8, 9),
        (12, 8, 12),
        (13, 8, 8),  # more would take too much memory
        (3, 16, 16),
    ],
)
def test_runs_that_do_not_come_out_even_share_the_cores(jobs: int, cores: int, found: int) -> None:
    assert devices.side_by_side(jobs, cores) == found


def test_only_the_suite_s_own_number_of_workers_is_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    devices.register_resolvers()

    def shared(n_jobs: object = "${workers:${trainer.accelerator}}", kind: str = "auto") -> int:
        launcher = {"_target_": "joblib", "n_jobs": n_jobs}
        config = {"trainer": {"accelerator": kind}, "hydra": {"launcher": launcher}}
        devices.share_out(made := OmegaConf.create(config), 3)
        return made.hydra.launcher.n_jobs

    assert (shared(), shared(kind="cpu"), shared(2)) == (3, 3, 2)
    install_gpus(tmp_path, 2)
    gpus._installed_gpus.cache_clear()
    assert (shared(), shared(kind="cpu")) == (2, 3)
    monkeypatch.setenv(devices.WORKERS, "2")
    assert shared(kind="cpu") == 2
    basic = OmegaConf.create({"hydra": {"launcher": {}}, "trainer": {"accelerator": "cpu"}})
    devices.share_out(basic, 3)
    assert basic.hydra.launcher == {}


def test_the_environment_sets_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.WORKERS, "5")
    assert devices.workers() == 5
    for wrong in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv(devices.WORKERS, wrong)
        with pytest.raises(ValueError, match="BNNBENCH_WORKERS"):
            devices.workers()


def test_outside_a_worker_all_gpus_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert devices.claim_gpu() is None
    assert visible_gpus() == ["4", "7"]


def _claim(index: int, folder: Path) -> tuple[str | None, str | None, list[str]]:
    first = devices.claim_gpu()
    (folder / f"claimed{index}").touch()
    while len(list(folder.glob("claimed*"))) < 2:  # one worker must not do both jobs
        time.sleep(0.01)
    return first, devices.claim_gpu(), visible_gpus()


def test_each_worker_claims_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    jobs = [joblib.delayed(_claim)(index, tmp_path) for index in range(2)]
    claims = joblib.Parallel(n_jobs=2, batch_size=1, timeout=120)(jobs)
    assert sorted(claims) == [("4", None, ["4"]), ("7", None, ["7"])]
