"""Put a finished run's network into ``zoo/``, packed: python tools/add_to_zoo.py <run's folder>...

Written are the packed file, the run's ``result.json`` and a known answer: the logits of a hundred
images that every machine makes alike. An entry is called <backbone>_<quantizer>_<dataset>, a twin
in full precision, of 16 bits a weight, <backbone>_fp32_<shortcut>_<nonlinearity>_<dataset>. The
packed file comes from the last epoch's weights, which the result's headline is of; results that
cannot be traced to a commit or that are no full runs are refused.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import bnnbench
from bnnbench.packing.work import work_of
from bnnbench.records.exports import record_export, with_export
from bnnbench.records.store import read_result_file, write_json
from bnnbench.runs.zoo import KNOWN, Entry, entry, name_of, pretrained
from bnnbench.runtime import format
from bnnbench.runtime.check import check_images

PACKED = "packed.safetensors"  # in a run's folder
HEADER = """# Zoo

Packed 1-bit networks that this suite has trained: `bnnbench.load_pretrained("<name>")`, or
`bnnbench predict ckpt_path=zoo/<name>.safetensors input=<images>`. Each stands beside the result of
its run and the logits of a hundred generated images. [Packed files](../docs/packed.md).

| name | data | accuracy or mAP % (last epoch) | file kB | epochs | commit |
|---|---|---:|---:|---:|---|
"""


def main() -> None:
    """Add the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="of finished runs")
    folders = parser.parse_args().folders
    for folder in folders:  # all of them before any is written, which changes the checkout
        export(folder)
    for folder in folders:
        made = enter(folder)
        print(f"{made.file}: {made.file.stat().st_size / 1e3:.1f} kB")


def export(folder: Path) -> None:
    """Pack a run's network beside its result. Raises ValueError for one that does not belong here.

    The file says which commit made it.
    """
    result = read_result_file(folder / "result.json")
    check(result, folder)
    checkpoint, packed = folder / "checkpoints" / "last.ckpt", folder / PACKED
    half = result["choices"]["quantizer"] == "fp32"
    bnnbench.export(bnnbench.load(checkpoint), packed, half=half)
    work = work_of(format.read(packed)[0])
    record_export(packed, checkpoint, result["fingerprint"], work, half)


def enter(folder: Path, zoo: Path | None = None) -> Entry:
    """Put a run that was packed into the zoo."""
    path = folder / "result.json"
    result = with_export(read_result_file(path), path)
    made = entry(name_of(result), zoo)
    made.file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / PACKED, made.file)
    write_json(made.record, result)
    made.answer.write_bytes(safetensors.torch.save({"logits": answer(made.file)}))
    (made.file.parent / "README.md").write_text(readme(zoo), encoding="utf-8")
    return made


def check(result: dict[str, Any], folder: Path) -> None:
    """Whether a result may stand in the zoo."""
    git = result["git"]
    if not git["commit"] or git["dirty"] is not False:
        raise ValueError(f"{folder} was measured with uncommitted changes: run it with force=true")
    if result["ended"] or not result["epochs"]:
        raise ValueError(f"{folder} is no full run: it ended by {result['ended']}")


@torch.no_grad()
def answer(file: Path) -> torch.Tensor:
    """Logits (100, K) of the packed network."""
    net = bnnbench.runtime.load(file)
    return net(check_images(net.image, KNOWN)).contiguous()


def readme(zoo: Path | None = None) -> str:
    """The list of all entries."""
    rows = [_row(entry(name, zoo)) for name in pretrained(zoo)]
    return HEADER + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(made: Entry) -> list[str]:
    result = made.result
    score = 100 * result["metrics"]["last"][result["headline"]]
    size = f"{made.file.stat().st_size / 1e3:.1f}"
    commit = result["git"]["commit"][:10]
    data = result["choices"]["dataset"]
    return [f"`{made.name}`", data, f"{score:.2f}", size, str(result["epochs"]), commit]


if __name__ == "__main__":
    main()
