"""Where the package finds what lies beside its code; free of torch."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_TOP = PACKAGE.parents[1]  # of a checkout; above site-packages where a wheel is installed


def conf_dir() -> Path:
    """The folder of the config groups: a checkout's ``conf``, or the wheel's copy of it.

    ``bnnbench/conf`` is a link to the checkout's, so that wheels hold it and Hydra can import it.
    """
    return _TOP / "conf" if _in_checkout() else PACKAGE / "conf"


def zoo_dir() -> Path:
    """The folder of packed files that come with the package, likewise."""
    return _TOP / "zoo" if _in_checkout() else PACKAGE / "zoo"


def checkout() -> Path:
    """The checkout's top, or the working folder where the package is installed without one."""
    return _TOP if _in_checkout() else Path.cwd()


def program() -> str:
    """What a training is typed as: in a checkout its script, else the installed command."""
    return "python src/train.py" if _in_checkout() else "bnnbench train"


def _in_checkout() -> bool:
    return (_TOP / "conf" / "train.yaml").is_file()
