"""What is made of a module's buffers once, such as the kernel's layout of them."""

from __future__ import annotations

from typing import Any

from bnnbench.runtime.kernel import Kernel
from bnnbench.runtime.operators import Handled


class Derived(Handled):
    """A module that keeps what it makes of its buffers, until these change, and knows its path."""

    def __init__(self) -> None:
        super().__init__()
        self._derived: dict[Any, Any] = {}

    @property
    def path(self) -> str:
        """Where the layer is computed: ``kernel: ...`` or ``float: ...`` and why."""
        kernel, which = self.engine
        return f"{'kernel' if kernel else 'float'}: {which}"

    @property
    def engine(self) -> tuple[Kernel | None, str]:
        """The kernel that computes the layer, and its name; or None, and why."""
        return self.derived("engine", self.choose)

    def choose(self) -> tuple[Kernel | None, str]:
        """The same, found out."""
        raise NotImplementedError

    def derived(self, key: Any, make: Any) -> Any:
        """What ``make()`` gave the first time, kept until a buffer changes."""
        found = self._derived.get(key)
        if found is None:
            found = self._derived[key] = make()
        return found

    def _apply(self, fn: Any, recurse: bool = True) -> Derived:
        self._derived.clear()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._derived.clear()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_derived": {}}
