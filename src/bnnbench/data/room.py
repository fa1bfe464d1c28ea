"""Whether a GPU has room for the images that a run keeps there, asked before any is moved."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SHARE = 0.8  # of what is free; the rest is the network's


def check_fits(name: str, tensors: Iterable[Tensor], device: torch.device) -> None:
    """Refuse images that ``device`` cannot hold beside a network.

    Args:
        name: of the set.
        tensors: all that is to be kept there; what is there already counts nothing.
        device: where; only a GPU's memory is asked for.

    Raises:
        ValueError: they take more than their share of what is free.
    """
    if device.type != "cuda":
        return
    wanted = sum(tensor.nbytes for tensor in tensors if tensor.device != device)
    free = torch.cuda.mem_get_info(device)[0] if wanted else 0
    if wanted > SHARE * free:
        raise ValueError(
            f"dataset={name} takes {wanted / 1e9:.2f} GB of the GPU, of which {free / 1e9:.2f} GB "
            "are free: let fewer runs share it (BNNBENCH_WORKERS=<n>), give trainer.accelerator="
            "cpu, or save it as class folders, which dataset=image_folder reads batch by batch"
        )
