"""When a network is compiled."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from bnnbench.callbacks.compilation import Compilation

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_gpus_and_long_runs_compile() -> None:
    auto = Compilation("auto")
    assert auto.pays(GPU, steps=1)
    assert not auto.pays(CPU, steps=100)  # a demo: 5 epochs of digits are 110 steps
    assert auto.pays(CPU, steps=10**6) == (shutil.which("g++") is not None)
    assert Compilation(True).pays(CPU, steps=1)
    assert not Compilation(False).pays(GPU, steps=10**6)


def test_on_cpu_ten_epochs_of_cifar_10_pay_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert Compilation("auto").pays(CPU, steps=10 * 390)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not Compilation("auto").pays(CPU, steps=10 * 390)


class Net:
    """Knows whether it was compiled."""

    compiled = False

    def compile(self, **options: bool) -> None:
        self.compiled, self.options = True, options


@pytest.mark.parametrize("when", [True, False])
def test_a_teacher_is_compiled_with_its_student(when: bool) -> None:
    teacher = SimpleNamespace(net=Net())
    module = SimpleNamespace(net=Net(), teacher=teacher, device=CPU)
    alone = SimpleNamespace(net=Net(), teacher=None, device=CPU)
    for task in (module, alone):
        trainer = SimpleNamespace(estimated_stepping_batches=1)
        Compilation(when).on_fit_start(trainer, task)  # type: ignore[arg-type]
    assert [each.net.compiled for each in (module, teacher, alone)] == [when] * 3


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="compile='maybe'"):
        Compilation("maybe")


@pytest.mark.parametrize("static", [True, False])
def test_each_size_of_images_is_compiled_for_itself(static: bool) -> None:
    module = SimpleNamespace(net=Net(), teacher=None, device=CPU)
    trainer = SimpleNamespace(estimated_stepping_batches=1)
    Compilation(True, static).on_fit_start(trainer, module)  # type: ignore[arg-type]
    assert module.net.options == ({"dynamic": False} if static else {})
