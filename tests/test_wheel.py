"""The installed package finds its configs without a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import bnnbench, bnnbench.config
assert "site" in bnnbench.__file__, bnnbench.__file__
spec = bnnbench.load_quantizer("adabin", activation_center="reference")
assert spec.config["activation"]["center"] == "reference"
net = bnnbench.build_backbone("resnet20", quantizer="irnet", num_classes=7)
assert net.fc.out_features == 7
print(len(bnnbench.config.options("quantizer")))
"""
PREDICTION = """
import bnnbench, torch
net = bnnbench.load_pretrained("resnet20_adabin_digits")
logits = net(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
print(logits.shape, bnnbench.runtime.report(net.net)[0].path)
"""
RUN = "quantizer=xnor backbone=resnet20 trainer.max_epochs=1 +trainer.limit_train_batches=2"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_quantizers_load_from_the_built_wheel_in_an_empty_folder(
    site: Path, tmp_path: Path
) -> None:
    assert (site / "hydra_plugins" / "bnnbench_sweeper" / "__init__.py").exists()
    assert not (site / "hydra_plugins" / "__init__.py").exists()  # would hide other plugins
    done = run(site, tmp_path, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((ROOT / "conf" / "quantizer").glob("*.yaml")))


def test_the_wheel_holds_the_configs_once(site: Path) -> None:
    own = {file.relative_to(ROOT / "conf") for file in (ROOT / "conf").rglob("*.yaml")}
    conf = site / "bnnbench" / "conf"
    assert {file.relative_to(conf) for file in conf.rglob("*.yaml")} == own
    assert (site.glob("*.dist-info/entry_points.txt").__next__()).read_text() == (
        "[console_scripts]\nbnnbench = bnnbench.commands:main\n"
    )


def test_the_wheel_holds_the_zoo(site: Path, tmp_path: Path) -> None:
    own = {file.name: file.read_bytes() for file in (ROOT / "zoo").iterdir()}
    assert {file.name: file.read_bytes() for file in (site / "bnnbench" / "zoo").iterdir()} == own
    done = run(site, tmp_path, "-c", PREDICTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("torch.Size([2, 10]) kernel: ", "torch.Size([2, 10]) float: "))


def test_the_installed_command_trains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-m", "bnnbench", "train", *RUN.split())
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("logs/runs/*/result.json")
    command = json.loads(file.read_text())["command"]
    assert command == " ".join(["bnnbench train", *sorted(RUN.split())])
    again = run(site, tmp_path, "-m", "bnnbench", "train", *RUN.split())
    assert "force=true runs it again" in again.stdout, again.stderr
