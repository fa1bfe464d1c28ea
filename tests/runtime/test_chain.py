"""Channel-wise operations gathered into one epilogue, against torch's own one by one."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnnbench.runtime.chain import Chain, epilogue, extended
from bnnbench.runtime.ops import OPS, affine, slopes

CHANNELS = 4
NUMBERS = st.sampled_from([-3.0, -1.5, -0.25, 0.5, 1.0, 2.0, 0.0])
ROW = st.one_of(
    st.lists(NUMBERS, min_size=CHANNELS, max_size=CHANNELS).map(torch.tensor),
    NUMBERS.map(lambda number: torch.tensor([number])),
)
BOUND = st.one_of(st.none(), NUMBERS)
STEP = st.one_of(
    st.tuples(st.just("affine"), st.tuples(st.one_of(st.none(), ROW), st.one_of(st.none(), ROW))),
    st.tuples(st.just("slopes"), st.tuples(ROW, ROW)),
    st.tuples(st.just("prelu"), st.tuples(ROW)),
    st.tuples(st.sampled_from(["relu", "relu6", "hardtanh", "leaky_relu"]), st.just(())),
    st.tuples(st.just("clamp"), st.tuples(BOUND, NUMBERS)),
    st.tuples(st.just("clamp_min"), st.tuples(NUMBERS)),
    st.tuples(st.just("clamp_max"), st.tuples(NUMBERS)),
)
STEPS = st.lists(STEP, max_size=5)


def run(x: Tensor, steps: list) -> Tensor:
    functions = OPS | {"affine": affine, "slopes": slopes}
    for op, args in steps:
        x = functions[op](x, *args)
    return x


def gathered(steps: list) -> tuple[Chain, int]:
    """The chain of the first of these, and how many they are."""
    chain, count = Chain(), 0
    for op, args in steps:
        found = extended(chain, op, list(args), {})
        if found is None:
            break
        chain, count = found, count + 1
    return chain, count


def maps() -> Tensor:
    values = torch.linspace(-40, 40, 321)  # quarters: sums and products here are exact
    return values.view(1, 1, -1, 1).expand(1, CHANNELS, -1, 1).contiguous()


@settings(max_examples=300, deadline=None)
@given(STEPS, STEPS)
def test_an_epilogue_is_the_operations_that_it_was_gathered_from(first: list, second: list) -> None:
    x, add = maps(), maps().flip(2) / 4
    before, count = gathered(first)
    after, more = gathered(second)
    expected = run(x, first[:count])
    found = epilogue(before, None)
    assert found is not None
    torch.testing.assert_close(applied(found, x), expected, rtol=1e-5, atol=1e-4)
    both = epilogue(before, after)
    if both is not None:
        expected = run(expected + add, second[:more])
        torch.testing.assert_close(applied(both, x, add), expected, rtol=1e-5, atol=1e-3)


def applied(epilogue, x: Tensor, add: Tensor | None = None) -> Tensor:
    x = affine(x, epilogue.scale, epilogue.shift)
    x = x if epilogue.before is None else epilogue.before(x)
    x = x if add is None else x + add
    return x if epilogue.after is None else epilogue.after(x)


def test_common_chains_are_whole() -> None:
    one, slope = torch.ones(CHANNELS), torch.full((CHANNELS,), 0.25)
    block = [("affine", (2 * one, one)), ("prelu", (slope,)), ("affine", (None, one))]
    assert gathered(block)[1] == 3
    assert gathered([*block, ("hardtanh", ())])[1] == 4
    assert gathered([*block, ("prelu", (slope,))])[1] == 3
    assert gathered([("clamp", (torch.ones(1), None))])[1] == 0
    zero = Chain().affine(torch.tensor([0.0, 1.0]), torch.ones(2))
    assert zero is not None
    kinked = zero.slopes(torch.ones(2), torch.zeros(2))
    assert kinked is not None
    assert kinked.behind_sum() is None  # a shift that no scale can carry through


def test_a_shift_that_a_tiny_scale_would_carry_out_of_range_stays_behind() -> None:
    chain = Chain(torch.tensor([1e-40]), torch.tensor([1.0]), torch.ones(1), torch.zeros(1))
    assert chain.behind_sum() is None
    assert math.isinf(float(chain.shift / chain.scale))  # pyright: ignore
