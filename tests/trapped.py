"""What would make a GPU wait, trapped in the steps of a training on the CPU."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils._python_dispatch import TorchDispatchMode

SOURCE = str(Path(__file__).resolve().parents[1] / "src")
TORCH = str(Path(torch.__file__).parent)
# Operations whose result the processor has to see: values, or shapes that values decide.
WAITS = (
    "_local_scalar_dense",  # item, tolist, bool, int, float, and what of Python needs a number
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "bincount",
    "repeat_interleave",
    "nms",
    "lift_fresh",
)
COPIES = ("cpu", "numpy", "tolist")  # methods that dispatch nothing where the tensor is on the CPU


class Trap(TorchDispatchMode):
    """Notes every operation that a GPU would be waited for, with the line that asked for it.

    Attributes:
        found: name of the operation and ``file:line function`` of each, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Any:
        for name in COPIES:
            self._kept[name] = getattr(torch.Tensor, name)
            setattr(torch.Tensor, name, self._noting(name))
        self._one_hot = torch.nn.functional.one_hot
        torch.nn.functional.one_hot = self._unwatched_one_hot
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for name, method in self._kept.items():
            setattr(torch.Tensor, name, method)
        torch.nn.functional.one_hot = self._one_hot
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS or _masks(name, args):
            self._note(name)
        return func(*args, **(kwargs or {}))

    def _unwatched_one_hot(self, labels: torch.Tensor, num_classes: int = -1) -> torch.Tensor:
        """Of a known number of classes, which torch holds the labels against on a CPU alone."""
        before = len(self.found)
        result = self._one_hot(labels, num_classes)
        if num_classes > 0:
            del self.found[before:]
        return result

    def _noting(self, name: str) -> Any:
        def noted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._note(name)
            return self._kept[name](tensor, *args, **kwargs)

        return noted

    def _note(self, name: str) -> None:
        frames = [f for f in traceback.extract_stack() if f.filename != __file__]
        if any(f.name == "_get_value" and f.filename.startswith(TORCH) for f in frames):
            return  # an optimiser's count of steps, which is on the CPU on every machine
        places = [f for f in frames if not f.filename.startswith(TORCH)][-1:]
        places = [f for f in frames if f.filename.startswith(SOURCE)][-1:] + places
        self.found.append(f"{name}: " + " <- ".join(dict.fromkeys(map(_place, places))))


def _place(frame: traceback.FrameSummary) -> str:
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}"


def _masks(name: str, args: Any) -> bool:
    """Whether it is an indexing by truth values, whose result has as many elements as are true."""
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    indices = [index for index in args[1] if index is not None]
    kinds = (torch.bool, torch.uint8)
    by_mask = any(index.dtype in kinds for index in indices)
    constant = name != "index" and args[2].numel() == 1  # which is masked_fill
    return by_mask and not constant


class Trapped(L.Callback):
    """Traps whole steps: from the third batch of each epoch to the start of its last one.

    The first steps make what lasts, and behind the last one an epoch's values are read.
    """

    def __init__(self) -> None:
        self.trap = Trap()
        self.steps = 0  # that were trapped
        self._entered = False

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, i: int) -> None:
        last = i + 1 == trainer.num_training_batches
        if self._entered and last:
            self.leave()
        elif i >= 2 and not last:
            self.steps += 1
            if not self._entered:
                self.trap.__enter__()
                self._entered = True

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.leave()

    def leave(self) -> None:
        if self._entered:
            self._entered = False
            self.trap.__exit__(None, None, None)
