"""What train.py puts around Hydra: tables that sweep, and valid keys beside a mistyped one."""

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bnnbench.checks.errors import full_error, is_told, message

# Hydra's other commands, which do not go together with --multirun.
_COMMANDS = ("-m", "--multirun", "-r", "--run", "-c", "--cfg", "-i", "--info", "-h", "--help")
_COMMANDS += ("-sc", "--shell-completion", "--shell_completion", "--hydra-help")
# Those of Hydra's flags that have a word of their own behind them; --info may have one.
_WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name")
_WITH_VALUE += ("-cd", "--config-dir", "--experimental-rerun")
_INFO = ("-i", "--info")
_SWEEPING = ("table=", "hparams_search=")
# Hydra's launchers and sweepers that come in packages of their own.
_PACKAGES = {
    "hydra/launcher/ray": "'bnnbench[ray]'",
    "hydra/launcher/ray_aws": "'bnnbench[ray]'",
    "hydra/launcher/rq": "hydra-rq-launcher",
    "hydra/sweeper/ax": "hydra-ax-sweeper",
    "hydra/sweeper/nevergrad": "hydra-nevergrad-sweeper",
}


def ensure_multirun(argv: list[str]) -> list[str]:
    """`argv` with `-m` where it asks for `table=` or `hparams_search=`: both sweep without it too.

    Overrides that stand before and behind a flag stand together: Hydra takes those of one place.
    """
    argv = _gathered(argv)
    chosen = dict(word.split("=", 1) for word in argv[1:] if word.startswith(_SWEEPING))
    commanded = any(word.split("=")[0] in _COMMANDS for word in argv[1:])
    if set(chosen.values()) <= {"none"} or commanded:
        return argv
    return [argv[0], "-m", *argv[1:]]


def _gathered(argv: list[str]) -> list[str]:
    """`argv` with its overrides first, where flags stand between them."""
    flags: list[int] = []
    for number, word in enumerate(argv[1:], start=1):
        before = argv[number - 1]
        value = before in _WITH_VALUE or (before in _INFO and "=" not in word)
        if word.startswith("-") or value:
            flags.append(number)
    rest = [number for number in range(1, len(argv)) if number not in flags]
    if "--" in argv or not rest or rest[-1] - rest[0] < len(rest):
        return argv
    return [argv[0], *(argv[number] for number in (*rest, *flags))]


def with_home(argv: list[str]) -> list[str]:
    """`argv` with the home folder for each `~/` that begins a value, where shells leave it alone.

    Hydra has no use for one there.
    """
    home = str(Path.home())
    return [re.sub(r"(?<=[=,])~(?=[/,]|$)", lambda _: home, word) for word in argv]


def with_folder(argv: list[str]) -> list[str]:
    """`argv` with the run's folder where `--cfg ... --resolve` shows the config.

    By itself Hydra knows a run's folder only once there is one, and shows null.
    """
    if "--resolve" not in argv or any(word.startswith("paths.output_dir=") for word in argv):
        return argv
    return [argv[0], "paths.output_dir=${paths.runs_dir}/${run_name:}", *argv[1:]]


def check_sweeper(argv: list[str]) -> None:
    """Refuse `hydra.sweeper.params`, which the default sweeper does not read, with a SystemExit."""
    sweepers = [word for word in argv[1:] if word.startswith("hydra/sweeper=")]
    if sweepers and sweepers[-1] != "hydra/sweeper=bnnbench":
        return
    for word in argv[1:]:
        key = word.partition("=")[0].lstrip("+~")
        if key == "hydra.sweeper.params" or key.startswith("hydra.sweeper.params."):
            raise SystemExit(
                f"{word}: the sweeper bnnbench has no params: type the values on the command line, "
                "-m <key>=<a>,<b>, write them into a table, conf/table/<name>.yaml, or search with "
                "hparams_search=<name>"
            )


def check_launcher(argv: list[str]) -> None:
    """Refuse a launcher of submitit's where Hydra's plugin is not there, with a SystemExit."""
    for word in argv[1:]:
        group, _, option = word.partition("=")
        if group.lstrip("+") != "hydra/launcher" or not option.startswith("submitit_"):
            continue
        if find_spec("hydra_plugins.hydra_submitit_launcher") is None:
            raise SystemExit(
                f"{word} needs Hydra's submitit launcher, which this installation has not: "
                "pip install 'bnnbench[slurm]', or leave it out"
            )


def check_scale(argv: list[str]) -> None:
    """Refuse `scale=` without a table, of which alone it says anything. Raises SystemExit."""
    keys = {word.partition("=")[0]: word for word in argv[1:]}
    if "scale" in keys and not keys.keys() & {"table", "experiment"}:
        raise SystemExit(
            f"{keys['scale']} is the scale of a table: add table=<name>, or leave it out"
        )


def check_groups(argv: list[str], conf: Path) -> None:
    """Refuse `+<group>=<option>`, `<group>=null` and `<group>=[<unknown>]` of a group of `conf`.

    With a SystemExit: Hydra would speak of several values, or of a NoneType, and not name the
    group, and of a list not the options.
    """
    for word in argv[1:]:
        group, _, option = word.lstrip("+").partition("=")
        if option[:1] in ("", "{") or not (conf / group).is_dir():
            continue
        if word.startswith("+"):
            raise SystemExit(f"{word}: the config has {group} already: type {group}={option}")
        options = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        if option == "null":
            raise SystemExit(f"{word}: leave it out, or choose one of {', '.join(options)}")
        several = re.fullmatch(r"\[([\w, -]*)\]", option)
        for name in several[1].replace(" ", "").split(",") if several else ():
            if name and name not in options:
                raise SystemExit(f"{word}: there is no {name}; choose of {', '.join(options)}")


@contextmanager
def valid_keys() -> Iterator[None]:
    """Around `main()`: where Hydra refused a key, add the keys that stand in its place.

    Where it has not found a launcher or sweeper, add the package that brings it.
    """
    # Hydra checks conf/hydra/launcher/submitit_*.yaml against its plugin's options of these names,
    # which is wanted, and warns of it.
    known = r"\s*'hydra/launcher/submitit_\w+' is validated against"
    warnings.filterwarnings("ignore", message=known)
    try:
        yield
    except SystemExit as stop:  # Hydra has printed its error and exits while handling it
        error = stop.__context__
        if hint := _package(error) or _option(error) or _valid_keys(error):
            print(hint, file=sys.stderr)
        raise


@contextmanager
def short_errors() -> Iterator[None]:
    """Around `main()`: a mistake that Hydra itself meets ends in its message, without a traceback.

    Hydra shortens errors of its own classes alone, not a ValueError of its composition.
    """
    from hydra._internal import utils
    from hydra.errors import CompactHydraException

    reported = utils.run_and_report

    def short(func: Callable[[], Any]) -> Any:
        try:
            return func()
        except CompactHydraException:
            raise
        except Exception as error:
            if full_error() or not is_told(error):
                raise
            raise SystemExit(message(error)) from error

    utils.run_and_report = lambda func: reported(lambda: short(func))
    try:
        yield
    except ValueError as error:  # of flags that exclude each other
        if full_error():
            raise
        raise SystemExit(message(error)) from error
    finally:
        utils.run_and_report = reported


@contextmanager
def left_to_cells() -> Iterator[None]:
    """Around `main()`: a sweep's cells judge typed values, not Hydra's composition of the line.

    That has the usual option of each group that is swept or that a table chooses, so it would
    refuse what the cells' own options have: `table=adabin_voc dataset.augmentation=flip`.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.types import Override
    from hydra.errors import ConfigCompositionException
    from hydra.types import RunMode

    compose, apply = (
        ConfigLoaderImpl._load_configuration_impl,
        ConfigLoaderImpl._apply_overrides_to_config,
    )

    def lenient(overrides: list[Override], cfg: DictConfig) -> None:
        for override in overrides:
            with (
                nullcontext()
                if override.is_hydra_override()
                else suppress(ConfigCompositionException)
            ):
                apply([override], cfg)

    def composed(*args: Any, run_mode: RunMode, **options: Any) -> DictConfig:
        rule = lenient if run_mode == RunMode.MULTIRUN else apply
        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(rule)
        return compose(*args, run_mode=run_mode, **options)

    ConfigLoaderImpl._load_configuration_impl = composed  # pyright: ignore
    try:
        yield
    finally:
        ConfigLoaderImpl._load_configuration_impl = compose
        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply)


def _package(error: BaseException | None) -> str | None:
    missing = str(getattr(error, "missing_cfg_file", None)).removesuffix(".yaml")
    if missing == "hydra/sweeper/optuna":  # whose plugin wants an Optuna of long ago
        return "Optuna searches with hparams_search=<name> dataset.val_fraction=0.1"
    if (package := _PACKAGES.get(missing)) is None:
        return None
    group, _, option = missing.rpartition("/")
    return f"{group}={option} comes with a package of its own: pip install {package}"


def _option(error: BaseException | None) -> str | None:
    group, _, name = str(getattr(error, "missing_cfg_file", None)).rpartition("/")
    close = get_close_matches(name, getattr(error, "options", None) or [], n=1)
    return f"Did you mean {group}={close[0]}?" if group and close else None


def _valid_keys(error: BaseException | None) -> str | None:
    while error is not None and not isinstance(error, OmegaConfBaseException):
        error = error.__cause__
    parent = None if error is None else error.parent_node
    if not isinstance(parent, DictConfig) or not isinstance(error, AttributeError | KeyError):
        return None
    known = sorted(str(key) for key in parent if key != "hydra")
    place = parent._get_full_key("") or "the top level"
    close = get_close_matches(str(error.key), known, n=1)
    meant = f"Did you mean '{close[0]}'? " if close else ""
    return f"{meant}Valid keys of {place}: {', '.join(known)}"
