"""Where the package finds what lies beside its code; free of torch."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the config groups: a checkout's ``conf``, or the wheel's copy of it.

    In a checkout ``bnnbench/conf`` is a link to it, which a file system may not have.
    """
    inside = PACKAGE / "conf"
    return inside.resolve() if inside.is_dir() else PACKAGE.parents[1] / "conf"


def checkout() -> Path:
    """The checkout's top, or the working folder where the package is installed without one."""
    top = PACKAGE.parents[1]
    return top if (top / "conf").is_dir() else Path.cwd()


def program() -> str:
    """What a training is typed as: in a checkout its script, else the installed command."""
    in_checkout = (PACKAGE.parents[1] / "src" / "train.py").is_file()
    return "python src/train.py" if in_checkout else "bnnbench train"
