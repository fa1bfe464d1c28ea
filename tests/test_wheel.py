"""The installed package finds its configs without a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bnnbench.runtime import build

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
FALLBACK = """
import os, warnings
import bnnbench, torch
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    net = bnnbench.load_pretrained("resnet20_adabin_digits")
    logits = net(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
paths = {layer.path for layer in bnnbench.runtime.report(net.net)}
print([str(w.message) for w in told if "packed layers" in str(w.message)])
print(sorted(paths), logits.argmax(1).tolist(), float(logits.abs().sum()))
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


def run(
    site: Path, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    known = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env={**known, **environment},
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


@pytest.mark.skipif(not build.supported(), reason="no kernel for this CPU")
def test_a_pretrained_network_runs_with_a_compiler_and_without(site: Path, tmp_path: Path) -> None:
    """And says which path it took; each process has a cache of its own."""
    places = {"with": "/usr/bin:/bin", "without": str(tmp_path / "empty")}
    found = {}
    for name, path in places.items():
        cache = str(tmp_path / name)
        done = run(site, tmp_path, "-c", FALLBACK, PATH=path, XDG_CACHE_HOME=cache, HOME=cache)
        assert done.returncode == 0, done.stderr
        told, rest = done.stdout.splitlines()
        found[name] = rest
        if name == "without" or not any(build.compilers()):
            assert "['float: no C compiler was found as $CC, cc, gcc or clang" in rest
            assert "run in floats, exact but slower" in told
            assert "apt install gcc" in told
        else:
            assert f"['kernel: {build.supported()[0]}']" in rest
            assert told == "[]"
            assert list((tmp_path / name / "bnnbench" / "kernels").glob("*.so"))
    own, other = (rest.rpartition("] ")[2] for rest in found.values())
    assert float(own) == pytest.approx(float(other), rel=1e-4)


def test_the_installed_command_trains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-m", "bnnbench", "train", *RUN.split())
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("logs/runs/*/result.json")
    command = json.loads(file.read_text())["command"]
    assert command == " ".join(["bnnbench train", *sorted(RUN.split())])
    again = run(site, tmp_path, "-m", "bnnbench", "train", *RUN.split())
    assert "force=true runs it again" in again.stdout, again.stderr
