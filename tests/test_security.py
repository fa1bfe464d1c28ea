"""Each way in: what files of others say, and that none of it runs, escapes or overwhelms."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torchvision.transforms import v2

from bnnbench.data import DatasetDamaged, sources
from bnnbench.data.file_loader import ImageFiles
from bnnbench.records.checkpoints import BadCheckpoint, load_weights
from bnnbench.records.fingerprint import run_name
from bnnbench.records.foreign import Untrusted, taken, trusted_packages
from bnnbench.records.names import is_name
from bnnbench.records.signature import KEY, Signature, full_config, read_checkpoint
from bnnbench.records.source import source_hash
from bnnbench.records.store import trained
from bnnbench.report.markup import MISSING, Table
from bnnbench.report.promote import promote
from bnnbench.report.reading import read_json
from bnnbench.report.render import render
from bnnbench.runs.evaluation import evaluate
from bnnbench.runs.stages import stages
from bnnbench.runs.teacher import build_teacher
from bnnbench.sweep.manifest import table_name

Compose = Callable[..., DictConfig]
ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "results" / "runs" / "digits_resnet20_fp32_task_unified_s0_25545176.json"
# Where a class may stand in a file's config, and what is tried there; {marker} would be written.
SPAWN = {"_target_": "os.spawnvp", "file": "touch", "args": ["touch", "{marker}"]}
ATTACKS: dict[str, dict[str, Any]] = {
    "a program": {"quantizer": {"weight": SPAWN}},
    "a shell": {"quantizer": {"weight": {"_target_": "subprocess.getoutput", "cmd": "id"}}},
    "by a builtin": {"quantizer": {"output": {"_target_": "builtins.exec"}}},
    "by an import here": {"quantizer": {"weight": {"_target_": "bnnbench.layers.partial"}}},
    "by a function here": {"quantizer": {"weight": {"_target_": "bnnbench.config.target"}}},
    "by a writer here": {"backbone": {"_target_": "bnnbench.records.store.write_json"}},
    "by a private one": {"backbone": {"_target_": "bnnbench.backbones.timm._create"}},
    "of another room": {"quantizer": {"weight": {"_target_": "bnnbench.backbones.vgg.vgg7"}}},
    "by torch": {"backbone": {"_target_": "torch.hub.load", "repo_or_dir": "a/b"}},
    "by lightning": {"backbone": {"_target_": "lightning.Trainer"}},
    "nested": {"backbone": {"kwargs": {"block": [{"deep": {"_target_": "os.system"}}]}}},
    "no path": {"quantizer": {"weight": {"_target_": "system"}}},
    "no text": {"quantizer": {"weight": {"_target_": 7}}},
    "a list of paths": {"quantizer": {"weight": {"_target_": ["os.system"]}}},
    "a look at this machine": {"backbone": {"name": "${oc.env:HOME}"}},
    "weights from elsewhere": {"backbone": {"kwargs": {"checkpoint_path": "/etc/passwd"}}},
}


def merged(config: dict[str, Any], attack: dict[str, Any], marker: Path) -> dict[str, Any]:
    """``config`` with the attack in it; a class replaces what stood in its place."""
    out = dict(config)
    for key, value in attack.items():
        old = out.get(key)
        deeper = isinstance(value, dict) and isinstance(old, dict) and key in config
        replaced = isinstance(value, dict) and "_target_" in value and key != "backbone"
        out[key] = merged(old, value, marker) if deeper and not replaced else value  # type: ignore
    return json.loads(json.dumps(out).replace("{marker}", str(marker)))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.fixture
def teacher(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A downloaded run whose config holds an attack; its weights are never reached."""

    def downloaded(attack: dict[str, Any]) -> Path:
        folder = tmp_path / "teacher"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"")
        result = json.loads(RESULT.read_text())
        result["config"] = merged(result["config"], attack, tmp_path / "it-ran")
        (folder / "result.json").write_text(json.dumps(result))
        return folder

    return downloaded


def taught(compose: Compose, folder: Path, *more: str) -> DictConfig:
    arguments = ["loss=kd", "teacher=run", f"teacher.folder={folder}", *more]
    return compose("backbone=resnet20", *arguments)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_teachers_result_runs_nothing(
    name: str, compose: Compose, teacher: Callable[[Any], Path], marker: Path
) -> None:
    cfg = taught(compose, teacher(ATTACKS[name]))
    with pytest.raises(Untrusted, match=r"teacher\.folder=.*result\.json: (quantizer|backbone)\."):
        build_teacher(cfg, {})
    assert not marker.exists()


@pytest.fixture
def checkpoint(compose: Compose, tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """A downloaded checkpoint whose config holds an attack."""

    def downloaded(attack: dict[str, Any]) -> Path:
        cfg = compose("backbone=resnet20", "quantizer=xnor")
        config = merged(full_config(cfg), attack, tmp_path / "it-ran")
        fields = [config, None, list("0123456789"), [0.5], [0.5]]
        signature = Signature("digits_a", "0" * 64, None, *fields).as_dict()  # type: ignore
        state = {"net.fc.weight": torch.zeros(10, 64)}
        file = tmp_path / "downloaded.ckpt"
        torch.save({"state_dict": state, KEY: signature}, file)
        content = torch.load(file, weights_only=True)
        from bnnbench.records import signature as module

        content.pop(KEY)
        content[KEY] = signature | {"checksums": module._checksums(content)}
        torch.save(content, file)
        return file

    return downloaded


OF_A_CHECKPOINT = ATTACKS | {
    "data": {"dataset": {"_target_": "os.spawnvp"}},
    "a loss term": {"loss": {"terms": {"evil": {"_target_": "os.system", "command": "id"}}}},
    "a stage": {"recipe": {"stages": [{"name": "a", "set": {"loss": {"_target_": "os.system"}}}]}},
}


@pytest.mark.parametrize("name", OF_A_CHECKPOINT)
def test_a_checkpoints_config_runs_nothing(
    name: str, compose: Compose, checkpoint: Callable[[Any], Path], marker: Path, tmp_path: Path
) -> None:
    cfg = compose("train=false", f"ckpt_path={checkpoint(OF_A_CHECKPOINT[name])}")
    with pytest.raises(Untrusted, match=r"ckpt_path=.*downloaded\.ckpt: "):
        evaluate(cfg, tmp_path / "run", quiet=True)
    assert not marker.exists()


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of the user's with a weight side, which also imports other things."""
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from os import system\nfrom bnnbench.quantizers.base import Identity\n"
        "class Mine(Identity):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "mypkg"
    sys.modules.pop("mypkg", None)


def test_a_package_that_the_user_names_is_trusted(
    compose: Compose, teacher: Callable[[Any], Path], own_package: str
) -> None:
    folder = teacher({"quantizer": {"weight": {"_target_": "mypkg.Mine"}}})
    with pytest.raises(Untrusted, match=r"trust=\[mypkg\]"):
        build_teacher(taught(compose, folder), {})
    with pytest.raises(BadCheckpoint, match="cannot be read"):  # the network stands
        build_teacher(taught(compose, folder, "trust=[mypkg]"), {})


def test_what_a_trusted_package_imports_is_not(own_package: str) -> None:
    config = {"quantizer": {"weight": {"_target_": "mypkg.system", "command": "id"}}}
    with pytest.raises(Untrusted, match=r"mypkg\.system"):
        taken(config, ["quantizer"], "a file", ["mypkg"])
    gone = {"quantizer": {"weight": {"_target_": "mypkg.Gone"}}}
    with pytest.raises(Untrusted, match="is not there"):
        taken(gone, ["quantizer"], "a file", ["mypkg"])


def test_no_advice_to_trust_pythons_library() -> None:
    for path in ("os.system", "subprocess.run", "builtins.eval", "bnnbench.config.target"):
        with pytest.raises(Untrusted, match=r"take another file$"):
            taken({"quantizer": {"_target_": path}}, ["quantizer"], "a file")


@pytest.mark.parametrize("typed", ["trust=mypkg", "trust=[my.pkg]", "trust=[1]", "trust=['a b']"])
def test_trust_is_a_list_of_packages(compose: Compose, typed: str) -> None:
    with pytest.raises(ValueError, match="trust="):
        trusted_packages(compose(typed))


def test_what_is_typed_may_name_anything(compose: Compose, own_package: str) -> None:
    from bnnbench.config import quantizer_from_config

    cfg = compose("quantizer=fp32", "quantizer.weight={_target_: mypkg.Mine}")
    assert type(quantizer_from_config(cfg.quantizer).example.weight_quantizer).__name__ == "Mine"


@pytest.mark.parametrize("quantizer", sorted(p.stem for p in ROOT.glob("conf/quantizer/*.yaml")))
def test_every_method_of_the_suite_may_stand_in_a_file(compose: Compose, quantizer: str) -> None:
    config = full_config(compose(f"quantizer={quantizer}", "loss=bonn"))
    keys = ["quantizer", "loss", "backbone", "dataset", "recipe"]
    config["backbone"]["stem"] = "small"  # what auto was for 8 pixels when such files were written
    stored = deepcopy(config)
    stored["backbone"]["stem"] = "auto"
    assert taken(stored, keys, "a file") == {key: config[key] for key in keys}


def test_no_weights_are_fetched_because_a_file_says_so(compose: Compose) -> None:
    cfg = compose("backbone=timm", "backbone.name=resnet10t", "backbone.pretrained=true")
    assert taken(full_config(cfg), ["backbone"], "a file")["backbone"]["pretrained"] is False


@pytest.mark.parametrize("name", ["hf-hub:a/resnet10t", "local-dir:/tmp/x", "../x", "hf_hub:a/b"])
def test_timm_takes_no_model_from_elsewhere(name: str) -> None:
    from bnnbench.config import load_option, load_quantizer, target, to_dict

    root = OmegaConf.create({"dataset": {"num_classes": 10, "in_channels": 1, "image_size": 8}})
    root.backbone = load_option("backbone", "timm", {"name": name, "pretrained": True})
    node = {key: value for key, value in to_dict(root.backbone).items() if key != "name"}
    with pytest.raises(ValueError, match="timm has no model"):
        target(node)(load_quantizer("xnor"))


def test_a_config_without_end_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = [loop, loop]
    for config in ({"quantizer": loop}, {"quantizer": {1: 2}}, {"quantizer": {"a": object()}}, []):
        with pytest.raises(Untrusted):
            taken(config, ["quantizer"], "a file")


# Checkpoints


class Pickled:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def laughs() -> list[Any]:
    node: list[Any] = [0] * 10
    for _ in range(12):
        node = [node] * 10
    return node


BOMBS: dict[str, Callable[[Path], Any]] = {
    "a pickle": Pickled,
    "one number, repeated": lambda _: {"w": torch.zeros(1).expand(2**20, 2**12)},
    "a sparse giant": lambda _: {
        "w": torch.sparse_coo_tensor(
            torch.zeros(2, 1).long(), [1.0], (2**30, 2**10), check_invariants=True
        )
    },
    "a list in itself": lambda _: {"w": endless()},
    "a billion laughs": lambda _: {"w": laughs()},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_checkpoint_that_would_run_or_swell_is_refused(
    name: str, tmp_path: Path, marker: Path
) -> None:
    file = tmp_path / "a.ckpt"
    torch.save({"state_dict": BOMBS[name](marker)}, file)
    with pytest.raises(BadCheckpoint, match=r"a\.ckpt cannot be read"):
        load_weights(torch.nn.Linear(1, 1), file)
    assert not marker.exists()


def test_a_checkpoint_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.ckpt", tmp_path / "packed.ckpt"
    torch.save({"state_dict": {"weight": torch.zeros(2**25)}}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert packed.stat().st_size < 10**6
    with pytest.raises(BadCheckpoint, match="claim to unpack to"):
        read_checkpoint(packed)
    assert len(read_checkpoint(plain)["state_dict"]) == 1


# Data


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(width: int, height: int, more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(height * (1 + 3 * width) if width < 99 else 9)))
    return b"\x89PNG\r\n\x1a\n" + header + more + pixels + chunk(b"IEND", b"")


def gif() -> bytes:
    """Two frames of noise."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    first, second = map(Image.fromarray, noise)
    first.save(out, "GIF", save_all=True, append_images=[second])
    return out.getvalue()


ZEROS = b"a\0\0" + zlib.compress(bytes(3 * 10**7), 9)
JPEG = b"\xff\xd8\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\r\0\0\0/\xff\xff\xff\x0f\0\x07\x10\x11\x11\x88\x88\xfe\x07\0"
BMP = b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 10**5, 10**5, 1, 24, 0) + bytes(20)


def tif(width: int, height: int) -> bytes:
    """Grey without pixels."""
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    entries[279] = 64
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in entries.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + listed + bytes(4)


PICTURES = {
    "a.png": (png(60000, 60000), "claims more than 178956970 pixels"),
    "b.png": (png(2**31 - 1, 2**31 - 1), "claims more than"),
    "c.png": (png(8, 8, chunk(b"zTXt", ZEROS)), "too large"),
    "d.png": (png(8, 8, chunk(b"iCCP", ZEROS)), "too large"),
    "e.jpg": (JPEG + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00", "claims more"),
    "f.gif": (gif()[:6] + b"\xff" * 4 + gif()[10:], "claims more than"),
    "f2.gif": (gif(), "it is an animation"),
    "g.webp": (WEBP, "claims more than"),
    "h.bmp": (BMP, "claims more than"),
    "i.tif": (b"II*\0\x08\0\0\0\0\0", "no header of"),
    "i2.tif": (tif(60000, 60000), "claims more than"),
    "j.jpg": (b"", "it is empty"),
    "k.png": (png(8, 8)[:40], ""),
    "l.ppm": (b"P6 60000 60000 255\n", "claims more than"),
    "m.pgm": (b"P2 60000 60000 9\n" + b"7 " * 50, "claims more than"),
    # what Pillow opens as well, and this suite does not
    "n.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "no header of"),
    "o.psd": (b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x08\0\0\0\x08\0\x08\0\3", "Photoshop"),
    "p.tga": (bytes(2) + b"\2" + bytes(9) + b"\x08\0\x08\0\x18\0" + bytes(192), "no header of"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_judged_by_its_header(name: str, tmp_path: Path) -> None:
    content, reason = PICTURES[name]
    (tmp_path / name).write_bytes(content)
    files = np.array([os.fsencode(tmp_path / name)])
    images = ImageFiles(files, [0], v2.Resize(8), seed=0)
    with pytest.raises(DatasetDamaged, match=rf"{name} cannot be read \(.*{reason}.*replace it"):
        images[0, 0]


def npy(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    header = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


ARRAYS = {
    "a bomb": npy((400_000, 32, 32, 3)) + bytes(400_000 * 3072),
    "a claim": npy((10**9, 32, 32, 3)),
    "wide labels": npy((200,), "|S99999999"),
    "objects": npy((1,), "|O") + bytes(8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_is_judged_by_its_header(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cifar10.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as z:
        z.writestr("train_images.npy", ARRAYS[name])
    with pytest.raises(DatasetDamaged, match=r"cifar10\.npz cannot be read \((train_im|an array)"):
        sources.read("cifar10", tmp_path)


# Names


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "..", ".", "", " ", "a\\b", "a\nb", "a\0b", "/etc/x", "\x1b[2J", 7, None],
)
def test_what_is_no_name(name: object) -> None:
    assert not is_name(name)
    assert all(map(is_name, ["digits_resnet20_xnor_task_unified_s0_1a2b3c4d", "μ-net 2.0"]))


def manifest(**changes: Any) -> dict[str, Any]:
    cell = {"overrides": {}, "run": "a_run", "fingerprint": "0" * 64, "settings": {}}
    plain = {"name": "a", "command": "c", "table": None, "scale": None, "scale_notes": None}
    plain |= {"swept": [], "headline": None, "shared": {}, "figures": []}
    return {"schema": 2, **plain, "cells": [cell | changes.pop("cell", {})]} | changes


@pytest.mark.parametrize("run", ["../../etc", "/etc/x", "a/../../x", "..", "a\nb"])
def test_a_sweeps_cell_stays_in_the_runs_folder(run: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(manifest(cell={"run": run})))
    with pytest.raises(ValueError, match=r"sweep\.json is damaged \(cells\.0\.run: .*no name"):
        read_json(file)


def test_published_numbers_are_read_from_their_folder(tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(manifest(table={"published": "../secret"})))
    with pytest.raises(ValueError, match=r"published='\.\./secret' is no name"):
        render(file, [tmp_path], tmp_path / "out", tmp_path)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b"])
def test_promotion_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"promote=.* is no name"):
        promote(name, tmp_path, tmp_path, tmp_path / "results")


def test_promotion_follows_no_link_out_of_a_run(tmp_path: Path) -> None:
    from bnnbench.report.promote import _pictures

    pictures, secret = tmp_path / "run" / "pictures", tmp_path / "secret"
    pictures.mkdir(parents=True)
    secret.write_text("a key")
    (pictures / "boxes.png").write_bytes(b"")
    (pictures / "stolen.png").symlink_to(secret)
    assert _pictures(tmp_path / "run") == [pictures / "boxes.png"]


def test_a_stage_stays_in_its_runs_folder(compose: Compose, tmp_path: Path) -> None:
    cfg = compose("recipe.stages=[{name: ../../../x}]")
    with pytest.raises(ValueError, match=r"recipe\.stages, name='\.\./\.\./\.\./x' is no name"):
        stages(cfg)
    result = json.loads(RESULT.read_text())
    part = {key: result[key] for key in ("metrics", "epochs", "time", "config")}
    result["stages"] = [part | {"name": "../../x", "statistics": {}}]
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match="no name"):
        trained(tmp_path)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\\b", "a\u202eb"])
def test_a_runs_folder_is_one_name(name: str, compose: Compose) -> None:
    cfg = compose()
    cfg.quantizer.name = name
    with pytest.raises(ValueError, match=r"the run's folder=.* is no name"):
        run_name(cfg)
    cfg.quantizer.name = "../../x"
    assert is_name(run_name(cfg))


@pytest.mark.parametrize(("table", "scale"), [("../x", "demo"), ("a", "../../x"), ("a\nb", "demo")])
def test_a_tables_folder_is_one_name(table: str, scale: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        table_name(table, scale, [], [])


def test_a_results_code_is_looked_up_in_this_package_alone(tmp_path: Path) -> None:
    """Paths in the place of classes and options read nothing outside."""
    package = tmp_path / "src" / "bnnbench"
    shutil.copytree(ROOT / "src" / "bnnbench" / "quantizers", package / "quantizers")
    (tmp_path / "conf" / "quantizer").mkdir(parents=True)
    outside = {"_target_": "bnnbench.quantizers.xnor.XNORWeight"}
    OmegaConf.save(OmegaConf.create({"weight": outside}), tmp_path / "outside.yaml")
    (tmp_path / "outside.py").write_text("class XNORWeight: pass\n")

    def hashed(option: str) -> str:
        stage = {"name": "a", "set": {"quantizer": option}}
        return source_hash({"quantizer": {}, "recipe": {"stages": [stage]}}, package)

    assert hashed("../../outside") != source_hash({"quantizer": {"weight": outside}}, package)
    path = f"bnnbench.{tmp_path}/outside.XNORWeight"
    gone = source_hash({"quantizer": {"weight": {"_target_": "bnnbench.no.Class"}}}, package)
    assert len({gone, source_hash({"quantizer": {"weight": {"_target_": path}}}, package)}) == 2


# Tools


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "commit", ["--output={}", "--remote=. --exec=x", "HEAD", "-h", "0" * 6, "0" * 40 + "\n"]
)
def test_a_results_commit_is_no_option_of_git(
    commit: str, monkeypatch: pytest.MonkeyPatch, marker: Path
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("git was asked")

    monkeypatch.setattr(subprocess, "run", never)
    with (
        tool("checkouts", monkeypatch).Checkouts() as old,
        pytest.raises(LookupError, match="no commit's hash"),
    ):
        old.at(commit.format(marker))


def test_a_proof_runs_no_foreign_class(monkeypatch: pytest.MonkeyPatch) -> None:
    prove_code = tool("prove_code", monkeypatch)
    result = json.loads(RESULT.read_text())
    assert list(prove_code.foreign_code(result["config"])) == []
    for attack in ("os.system", "bnnbench.config.partial", "bnnbench.runs.loggers.os"):
        config = result["config"] | {"quantizer": {"weight": {"_target_": attack}}}
        claim = prove_code.Claim(RESULT, result | {"config": config}, "")
        prove_code.compare_hashes(claim, None)
        assert (claim.status, claim.why) == ("foreign", f"it would run {attack!r}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("quantizer", "../../../tmp/evil"),
        ("hydra.searchpath", "[pkg://evil]"),
        ("paths.log_dir", "${oc.env:HOME}"),
        ("a b", "1"),
    ],
)
def test_an_old_sweep_composes_what_conf_holds(
    key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no override of a run|no option of a group"):
        tool("rekey", monkeypatch)._word(key, value)


# Tables and pages

EVIL = [
    "<script>alert(1)</script>",
    "![seen](http://evil/x.png)",
    "[click](javascript:alert(1))",
    "[a]: http://evil",
    r"a\|b|c",
    "&lt;img onerror=x&gt;",
    "\x1b[2Jgone\u202etxt",
    r"\input{/etc/passwd}",
    "line\n# heading",
]


@pytest.fixture
def evil() -> Table:
    return Table(EVIL[0], ["a", "b"], [[text, "1"] for text in EVIL], EVIL)


def test_markdown_shows_what_is_no_plain_word(evil: Table) -> None:
    import markdown_it

    text = evil.markdown()
    html = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for tag in ("<script", "<img", "<a ", "href", "src="):
        assert tag not in html
    assert html.count("<tr>") == 1 + len(EVIL)
    assert html.count("<td") == 2 * len(EVIL)  # no text opens a cell
    assert html.count("<h1>") == 1
    assert "&lt;script&gt;" in html
    assert "![seen](http://evil/x.png)" in html
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_latex_runs_no_command(evil: Table) -> None:
    latex = evil.latex()
    assert r"\input" not in latex.replace(r"\textbackslash{}", "")
    assert r"\textbackslash{}input\{/etc/passwd\}" in latex
    bracket = Table("t", ["a"], [["[1cm]"], ["*"]]).latex()
    assert "\n{}[1cm] \\\\" in bracket
    assert "\n{}* \\\\" in bracket


@pytest.mark.parametrize("text", ["=cmd()", "@SUM(1)", "+1+cmd|' /C calc'!A0", "-2+3", "\t=1"])
def test_no_spreadsheet_takes_a_text_for_a_formula(text: str) -> None:
    assert Table("t", ["a"], [[text]]).csv().splitlines()[1].lstrip('"').startswith("'")


@pytest.mark.parametrize("text", ["-0.35", "+1.20", "97.22 ± 0.10", "-1e-05", "adabin", MISSING])
def test_numbers_and_words_stay_as_they_are_in_csv(text: str) -> None:
    assert Table("t", ["a"], [[text]]).csv() == f"a\n{text}\n"


def test_a_figures_labels_are_words() -> None:
    from bnnbench.plots import literal

    assert literal("a$x$\x1b") == r"a\$x\$ "
