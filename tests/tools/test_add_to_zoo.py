"""What enters the zoo is whole, traceable and of the run that its result speaks of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import add_to_zoo
import bnnbench
from bnnbench.paths import zoo_dir
from bnnbench.records.store import read_result_file
from bnnbench.runs.zoo import entry, pretrained
from bnnbench.runtime.check import check_images

RESULT = entry("resnet20_xnor_digits").record


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run's folder whose checkpoint is the packed file of the zoo."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    result = read_result_file(RESULT) | {"export": None}
    (folder / "result.json").write_text(json.dumps(result))
    content = entry("resnet20_xnor_digits").file.read_bytes()
    (folder / "checkpoints" / "last.ckpt").write_bytes(content)
    monkeypatch.setattr(bnnbench, "export", lambda _, path, half: path.write_bytes(content), False)
    return folder


def test_an_entry_is_written_with_its_result_and_a_known_answer(run: Path, tmp_path: Path) -> None:
    add_to_zoo.export(run)
    made = add_to_zoo.enter(run, tmp_path / "zoo")
    assert made == entry("resnet20_xnor_digits", tmp_path / "zoo")
    assert pretrained(tmp_path / "zoo") == ["resnet20_xnor_digits"]
    result = made.result
    assert result["export"]["bytes"] == made.file.stat().st_size
    assert {**result, "export": None} == read_result_file(run / "result.json")
    with torch.no_grad():  # with gradients, other float kernels may round otherwise
        told = bnnbench.load(made.file).net(check_images((1, 8, 8), 100))
    assert torch.equal(add_to_zoo.answer(made.file), told)
    assert "| `resnet20_xnor_digits` | digits | " in (tmp_path / "zoo" / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"git": {"commit": None, "dirty": None}}, "uncommitted"),
        ({"git": {"commit": "a", "dirty": True}}, "uncommitted"),
        ({"ended": "max_time=00:00:01:00"}, "no full run"),
    ],
)
def test_what_cannot_be_traced_or_is_not_whole_is_refused(
    run: Path, tmp_path: Path, change: dict, told: str
) -> None:
    result = json.loads((run / "result.json").read_text()) | change
    (run / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=told):
        add_to_zoo.export(run)
    assert not (run / "packed.safetensors").exists()


def test_the_list_is_that_of_the_entries() -> None:
    assert (zoo_dir() / "README.md").read_text() == add_to_zoo.readme()
