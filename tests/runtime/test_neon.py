"""The NEON kernel, compiled for aarch64 and run under an emulator, against the float path."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bnnbench.runtime import build, layout
from bnnbench.runtime.convolution import PackedConv2d
from bnnbench.runtime.epilogue import Epilogue
from bnnbench.runtime.kernel import CActivation, CEncoder, CLayer
from bnnbench.runtime.selftest import CASES, Case, activation, built, draw, on

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
# What the layout asks a kernel: vectors of 16 bytes, codes of 4 channels, twice their rows.
NEON = SimpleNamespace(name="neon", vector=16, channels=4, factor=2, chunk_pixels=lambda _: 0)


class Blob:
    """Bytes in which pointers are places of other bytes, until they are loaded."""

    def __init__(self) -> None:
        self.bytes, self.places, self.jobs = bytearray(64), [], []

    def put(self, data: bytes) -> int:
        """Where ``data`` stands, a multiple of 64."""
        self.bytes += bytes(-len(self.bytes) % 64)
        place = len(self.bytes)
        self.bytes += data + bytes(64)  # what is read in whole vectors
        return place

    def map(self, x: Tensor) -> int:
        """Where the values of maps (N, C, H, W) stand, channels last."""
        return self.tensor(x.permute(0, 2, 3, 1))

    def tensor(self, tensor: Tensor) -> int:
        """Where the values of a tensor stand."""
        return self.put(tensor.contiguous().numpy().tobytes())

    def structure(self, structure, tensors: Sequence[Tensor | None], offset: int = 0) -> int:
        """Where a structure stands whose first fields point at ``tensors``."""
        places = [None if t is None else self.tensor(t) for t in tensors]
        place = self.put(bytes(structure))
        for i, target in enumerate(places):
            self.point(place + offset + 8 * i, target)
        return place

    def point(self, place: int, target: int | None) -> None:
        """Let the pointer at ``place`` be ``target``."""
        self.bytes[place : place + 8] = struct.pack("<Q", target or 0)
        if target is not None:
            self.places.append(place)


def encoder(blob: Blob, layer: PackedConv2d) -> int:
    """Where the encoder of a layer stands."""
    encoding = layer.encoding(NEON)
    return blob.structure(encoding.structure, encoding.kept)


def lay_out(blob: Blob, case: Case, random: torch.Generator) -> None:
    """A job of one layer with all that can follow it."""
    layer, out = on(NEON, built(case, random)), case.weight[0]
    x = torch.randn(2, layer.in_channels, *case.size, generator=random).round(decimals=1)
    shape = layer.output_shape(x.shape)
    add = torch.randn(shape, generator=random) if case.fused else None
    scale, shift = draw(random, 2, out)
    epilogue = Epilogue(scale, shift, *(activation(random, out) for _ in range(2)))
    epilogue = epilogue if case.fused else None
    readers = [on(NEON, built(Case((8, out, 1, 1), (1, 1), {"padding": 1}), random))]
    readers = readers if case.fused and out % 4 == 0 else []
    plan = layout.plan(layer, NEON, epilogue, case.size, readers)
    places = [blob.structure(plan.structure, plan.kept[:7])]
    for field, (structure, kept) in zip(("before", "after"), plan.kept[7], strict=True):
        assert isinstance(structure, CActivation)
        for i, values in enumerate(kept or ()):
            blob.point(places[0] + getattr(CLayer, field).offset + 8 * i, blob.tensor(values))
    for i in range(2):
        target = encoder(blob, readers[i]) if i < len(readers) else None
        blob.point(places[0] + CLayer.next.offset + 8 * i, target)
    factor = None if add is None else add[:, :1] + 1
    y = on(None, layer).fused(x, epilogue=epilogue, add=add, factor=factor)[0]
    codes = expected_codes(readers[0], y) if readers else torch.zeros(0, dtype=torch.uint8)
    room = layer.encoding(NEON).room(x.shape).zero_()
    fields = [encoder(blob, on(NEON, layer)), places[0], blob.map(x), blob.tensor(room)]
    fields += [blob.map(each) if each is not None else 0 for each in (factor, add)]
    fields += [blob.tensor(torch.zeros(shape))]
    fields += [blob.tensor(codes.new_zeros(codes.numel() + 8)) if readers else 0]
    fields += [blob.map(y), blob.tensor(codes), y.numel() * 4, codes.numel()]
    blob.jobs.append(struct.pack("<12Q3i4x", *fields, len(x), *case.size))


def expected_codes(reader: PackedConv2d, y: Tensor) -> Tensor:
    """The bordered codes of ``y``, of a reader with zeros around its map."""
    high = reader.activation.codes(y).permute(0, 2, 3, 1) > 0
    codes = layout.map_codes(high, NEON)
    border = layout.HALVES[4][4] * NEON.factor
    return torch.nn.functional.pad(codes, (0, 0, 1, 1, 1, 1), value=border).flatten()


@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR}",
)
def test_the_neon_kernel_gives_the_bits_of_the_float_path(tmp_path: Path) -> None:
    blob, random = Blob(), torch.Generator().manual_seed(0)
    for case in CASES:
        lay_out(blob, case, random)
    head = struct.pack("<3Q", len(blob.bytes), len(blob.places), len(blob.jobs))
    places = struct.pack(f"<{len(blob.places)}Q", *blob.places)
    (tmp_path / "jobs").write_bytes(head + blob.bytes + places + b"".join(blob.jobs))
    flags = [flag for flag in build.COMMON if flag not in ("-shared", "-fPIC")]
    command = [COMPILER, *flags, "-fopenmp", "-static", "-w", f"-I{build.SOURCES[0].parent}", "-o"]
    source = str(Path(__file__).with_name("neon.c"))
    subprocess.run([*command, str(tmp_path / "neon"), source], check=True)
    run = [EMULATOR, str(tmp_path / "neon"), str(tmp_path / "jobs")]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{'0' * len(CASES)} neon\n", 0), done.stderr


def test_structures_are_those_of_a_64_bit_machine() -> None:
    assert len(bytes(CEncoder())) == 48
    assert CLayer.before.offset == 56
