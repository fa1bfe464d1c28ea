"""Hours of hand-made results, against sums by hand."""

import pytest

from bnnbench.report.spent import spent


def trained(device: str, processes: int = 1, **seconds: float | None) -> dict:
    return {"device": device, "world_size": processes, "time": seconds}


@pytest.mark.parametrize(
    ("results", "hours"),
    [
        ([trained("cpu: A, 1 thread", train_s=1800)], "1 training of 0.5 core-hours"),
        ([trained("cpu: A, 4 threads", 2, train_s=1800)], "1 training of 4.0 core-hours"),
        (
            [trained("cpu: A, 4 threads", train_s=9000, cpu_s=3600), trained("cpu", train_s=3600)],
            "2 trainings of 2.0 core-hours",
        ),
        (
            [trained("cuda: H", 2, train_s=3600, cpu_s=9), trained("cpu: A, 1 thread", train_s=36)],
            "2 trainings of 2.0 GPU-hours and 0.0 core-hours",
        ),
        ([trained("cpu: A, 1 thread", train_s=3600 * 1234)] * 2, "2 trainings of 2,468.0 core-h"),
    ],
)
def test_hours_are_those_of_cores_and_gpus(results: list[dict], hours: str) -> None:
    assert str(spent(results)).startswith(f"Behind these tables: {hours}")


def test_nothing_trained_says_nothing() -> None:
    assert spent([]) is None
    assert spent([{"device": None, "time": None}, trained("cpu: A", train_s=None)]) is None
