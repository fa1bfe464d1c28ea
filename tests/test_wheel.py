"""The installed package finds its configs without a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

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


def test_quantizers_load_from_the_built_wheel_in_an_empty_folder(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(site)
    empty.mkdir()
    assert (site / "hydra_plugins" / "bnnbench_sweeper" / "__init__.py").exists()
    assert not (site / "hydra_plugins" / "__init__.py").exists()  # would hide other plugins
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        cwd=empty,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((ROOT / "conf" / "quantizer").glob("*.yaml")))
