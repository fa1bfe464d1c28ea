"""A trained network as a file of one bit a weight, or for other runtimes.

bnnbench export ckpt_path=<checkpoint> [...]
  output=<file>     where to write it; beside the checkpoint unless given
  format=packed     packed (one safetensors file, for bnnbench.runtime) or onnx
  half=false        true: weights of layers in full precision are stored in 16 bits
  trust=[mypkg]     packages whose classes the checkpoint may name beside this one

The network that was written is compared with the trained one before the file is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bnnbench.commands.words import answered, check_checkpoint, meant, names

KEYS = ("ckpt_path", "output", "format", "half", "trust")
FORMATS = {"packed": ".safetensors", "onnx": ".onnx"}
WORDS = {"true": True, "false": False}


@dataclass
class Options:
    """What was typed."""

    ckpt_path: str = ""
    output: str = ""
    format: str = "packed"
    half: bool = False
    trust: list[str] = field(default_factory=list)


def run() -> None:
    """The command with the arguments of ``sys.argv``."""
    answered(__doc__, lambda words: exported(parsed(words)))


def parsed(words: Sequence[str]) -> Options:
    """The options that ``key=value`` words give. Raises ValueError."""
    found = Options()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise ValueError(f"{word}: no such key; {meant(key, KEYS)}")
        if key == "trust":
            found.trust = names(value)
        elif key == "half":
            if value.lower() not in WORDS:
                raise ValueError(f"half={value}: choose true or false")
            found.half = WORDS[value.lower()]
        else:
            setattr(found, key, value)
    if not found.ckpt_path:
        raise ValueError("give ckpt_path=<checkpoint of a run>")
    if found.format not in FORMATS:
        raise ValueError(f"format={found.format}: choose one of {', '.join(FORMATS)}")
    if found.half and found.format != "packed":
        raise ValueError(f"half=true is for format=packed, not {found.format}")
    return found


def place_of(options: Options) -> Path:
    """The file to write. Raises ValueError for a folder, or the checkpoint itself."""
    source = Path(options.ckpt_path).expanduser()
    if not options.output:
        return source.with_suffix(FORMATS[options.format])
    file = Path(options.output).expanduser()
    if file.is_dir():
        raise ValueError(f"output={options.output} is a folder: give a file in it")
    if file.exists() and source.exists() and file.samefile(source):
        raise ValueError(f"output={options.output} is the checkpoint itself: give another file")
    return file


def check_place(file: Path) -> None:
    """Refuse a place that nothing can be written to. Raises ValueError."""
    folder = next(each for each in file.absolute().parents if each.exists())
    if not folder.is_dir():
        raise ValueError(f"{file} cannot be written, {folder} is a file: set output=<another file>")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{file}: {folder} cannot be written to: set output=<another file>")


def exported(options: Options) -> None:
    """Load, export, and say what was written."""
    file = place_of(options)
    check_place(file)
    check_checkpoint(options.ckpt_path)
    from bnnbench.packing.export import export
    from bnnbench.packing.onnx import export_onnx
    from bnnbench.packing.work import work_of
    from bnnbench.records.exports import record_export
    from bnnbench.runs.trained import load
    from bnnbench.runtime.format import read
    from bnnbench.runtime.graph import PackedNetwork

    trained = load(options.ckpt_path, options.trust)
    if isinstance(trained.net, PackedNetwork):
        raise ValueError(f"{options.ckpt_path} is packed already: give the run's checkpoint")
    if options.format == "onnx":
        export_onnx(trained, file)
        print(f"Written to {file}: {file.stat().st_size / 1e6:.3f} MB, ONNX")
        return
    export(trained, file, half=options.half)
    print(told(file, trained.name))
    checkpoint, fingerprint = Path(options.ckpt_path).expanduser(), trained.signature.fingerprint
    work = work_of(read(file)[0])
    if record_export(file, checkpoint, fingerprint, work, options.half):
        print("Its run's tables show this size")


def told(file: Path, name: str) -> str:
    """What was written, its size and what its layers are."""
    from bnnbench import runtime

    net = runtime.load(file)
    paths = [layer.path for layer in runtime.report(net)]
    packed = f"{len(net.layers)} layers of 1-bit weights and activations"
    others = len(paths) - len(net.layers)
    if not paths:
        packed = "no layer of 1-bit weights: all of it is stored in floats"
    rest = f", {others} of 1-bit weights alone" if others else ""
    return f"Written to {file}: {name}, {file.stat().st_size / 1e6:.3f} MB, {packed}{rest}"
