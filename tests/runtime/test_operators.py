"""The packed convolution under torch.compile and torch.export, which see one operator."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Activation, Binarizer, Epilogue


class Block(nn.Module):
    """Two packed layers, the first of which makes the codes of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3).requires_grad_(False)
        self.first, self.second = (
            PackedConv2d(
                pack_bits(torch.randn(16, 144)),
                (16, 16, 3, 3),
                activation=Binarizer(),
                padding=1,
                scale=0.1,
            )
            for _ in range(2)
        )
        self.epilogue = Epilogue(torch.rand(16), None, None, Activation(1.0, 0.25))

    def forward(self, x: Tensor) -> Tensor:
        """Pooled features."""
        x = self.stem(x)
        y, (codes,) = self.first.fused(x, epilogue=self.epilogue, add=x, next=(self.second,))
        return self.second.fused(codes, add=y)[0].mean((2, 3))  # pyright: ignore


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block().eval()


def test_the_operator_keeps_torchs_rules(block: Block) -> None:
    x = torch.randn(2, 16, 6, 5)
    arguments = x, block.first.handle, block.epilogue.handle, torch.randn(2, 16, 6, 5)
    tests = "test_schema", "test_faketensor"
    torch.library.opcheck(torch.ops.bnnbench.packed_conv2d, arguments, test_utils=tests)
    y = torch.ops.bnnbench.packed_conv2d(x, block.first.handle, 0, None)
    assert torch.equal(y, block.first(x))


def test_an_exported_network_computes_the_same(block: Block) -> None:
    x = torch.randn(2, 3, 9, 8)
    assert torch.equal(torch.export.export(block, (x,)).module()(x), block(x))


def test_a_compiled_network_computes_the_same(block: Block) -> None:
    x = torch.randn(2, 3, 9, 8)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), block(x))


def test_a_copy_is_a_layer_of_its_own(block: Block) -> None:
    copied, x = copy.deepcopy(block), torch.randn(1, 3, 9, 8)
    expected = block(x)
    copied.first.load_state_dict({**copied.first.state_dict(), "scale": torch.zeros(16)})
    assert torch.equal(block(x), expected)
    assert not torch.equal(copied(x), expected)
