"""The list of slow tests in conftest.py names what is there."""


def test_every_slow_test_and_every_exception_of_it_exists(without_a_test: list[str]) -> None:
    assert without_a_test == []
