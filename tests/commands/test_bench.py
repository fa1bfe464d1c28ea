"""``bnnbench bench``: what is typed, what is refused, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bnnbench.commands import bench as command
from bnnbench.commands.bench import Options, parsed, slug
from bnnbench.records.speeds import read_speeds, timings_of

QUICK = (
    "networks=resnet20 methods=birealnet batch=1 threads=1 ways=eager,int8,simulated seconds=0.1"
)


def test_nothing_typed_is_everything() -> None:
    assert parsed([]) == Options()
    assert Options().parts == ("networks", "layers")


def test_every_key() -> None:
    found = parsed(
        ["parts=layers", "batch=[1,8]", "threads=1", "ways=int8", "seconds=2.5", "out=a"]
    )
    assert found.parts == ("layers",)
    assert found.batch == (1, 8)
    assert found.threads == (1,)
    assert found.ways == ("int8",)
    assert found.seconds == 2.5
    assert found.out == "a"
    assert parsed(["methods=adabin,xnor,adabin"]).methods == ("adabin", "xnor")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("network=resnet20", "did you mean networks"),
        ("resnet20", "no such key"),
        ("parts=layer", "did you mean layers"),
        ("ways=packed", "there are eager, compiled, int8, simulated"),
        ("batch=0", "batch=0: give a whole number from 1 on"),
        ("batch=1.5", "batch=1.5: give a whole number"),
        ("threads=", "threads= holds nothing"),
        ("threads=1,9999", "threads=9999: there are"),
        ("seconds=-1", "seconds=-1: give seconds above 0"),
        ("seconds=nan", "seconds=nan: give seconds above 0"),
    ],
)
def test_what_is_wrong_is_one_line(typed: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("?", r"\?")):
        parsed([typed])


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("networks=resnet2", "networks=resnet2: there is none such; did you mean resnet20"),
        ("methods=bnn", "there are xnor, xnor_k, birealnet, reactnet, adabin"),
    ],
)
def test_unknown_networks_and_methods_are_told_before_anything_is_written(
    typed: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bnnbench bench", typed, f"out={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match=told):
        command.run()
    assert not (tmp_path / "out").exists()


def test_the_help_names_every_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bnnbench bench", "--help"])
    command.run()
    told = capsys.readouterr().out
    assert all(f"  {key}=" in told for key in command.KEYS)


def test_a_file_is_named_after_cpu_and_kernel() -> None:
    assert slug({"cpu": "AMD EPYC 9R14 (x)", "kernel": "avx2"}) == "amd_epyc_9r14_x_avx2"
    assert slug({"cpu": "A", "kernel": "float: no compiler"}) == "a_float"


def test_a_network_is_timed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    words = [*QUICK.split(), "parts=networks", f"out={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["bnnbench bench", *words])
    command.run()
    torch.set_num_threads(threads)
    (file,) = tmp_path.glob("*.json")
    speeds = read_speeds(file)
    assert speeds["command"] == f"bnnbench bench {' '.join(words)}"
    assert speeds["left_out"] == speeds["layers"] == []
    assert [s["method"] for s in speeds["subjects"]] == ["fp32", "birealnet"]
    plain, binary = (list(timings_of(speeds, s, batch=1)) for s in speeds["subjects"])
    assert [t["way"] for t in plain] == ["float, eager", "int8"]
    assert [t["way"] for t in binary] == ["packed", "simulated"]
    assert all(t["rounds"] >= 5 and min(t["ms"]) > 0 for t in [*plain, *binary])
    assert binary[0]["x_simulation"] is not None
    assert binary[1]["x_simulation"] == plain[0]["x_float"] == plain[1]["x_int8"] == [1, 1, 1]
    assert speeds["subjects"][1]["bytes"] < 60_000 < speeds["subjects"][0]["bytes"]
    assert json.loads(file.read_text()) == speeds
    assert f"Written to {file}" in capsys.readouterr().out
