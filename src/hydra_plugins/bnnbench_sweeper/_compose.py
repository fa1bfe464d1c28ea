"""The configs of a sweep's cells, equal to those that Hydra composes for its jobs, but quicker.

Hydra reads all yaml files again for each cell. Which files, and in which order, follows from the
options of groups alone; values are set in what they make. So each distinct choice of options is
composed once, and each cell is a copy of it in which Hydra's own function sets the cell's values.
"""

import copy
import re
from collections.abc import Sequence
from functools import cached_property

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, open_dict

from bnnbench.checks.mistakes import Mistakes, Several
from bnnbench.runs.counted import counted


class Composer:
    """Composes the cells of the sweep with the composed command line `config`.

    A cell's config has no `hydra`, whose interpolations exist only inside a job.
    """

    def __init__(self, config: DictConfig, loader: ConfigLoader) -> None:
        self.config, self.loader = config, loader
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._groups: dict[str, bool] = {}
        self._chosen: dict[tuple[str, ...], DictConfig] = {}

    def __call__(self, typed: Sequence[str]) -> DictConfig:
        """The config of a cell by its overrides. Raises what Hydra raises where it refuses one."""
        overrides = [self._override(word) for word in typed]
        if any(self._of_hydra(override) for override in overrides):
            return self._by_hydra(typed)
        options = [each for each in overrides if self._is_option(each)]
        values = [each for each in overrides if not self._is_option(each)]
        cfg = copy.deepcopy(self._with_options(tuple(str(each.input_line) for each in options)))
        try:
            ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
        except Exception:  # as Hydra tells it
            return self._by_hydra(typed)
        return cfg

    def chosen(self, typed: Sequence[str]) -> DictConfig:
        """What the options among a cell's overrides make, without its values."""
        return self._with_options(tuple(w for w in typed if self._is_option(self._override(w))))

    def _override(self, word: str) -> Override:
        if word not in self._parsed:
            (self._parsed[word],) = self._parser.parse_overrides([word])
        return self._parsed[word]

    def _of_hydra(self, override: Override) -> bool:
        """Whether it is for Hydra itself, or a sweep that Hydra refuses in a cell."""
        head = override.key_or_group.replace("/", ".").partition(".")[0]
        return head == "hydra" or override.is_sweep_override()

    def _is_option(self, override: Override) -> bool:
        """Whether Hydra takes it for the choice of an option, and not for a value."""
        return not isinstance(override.value(), dict) and self._is_group(override.key_or_group)

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            self._groups[key] = self._repository.group_exists(key)
        return self._groups[key]

    @cached_property
    def _repository(self) -> CachingConfigRepository:
        """Hydra's own search path, with what the command line or the config adds to it."""
        assert isinstance(self.loader, ConfigLoaderImpl)
        words = [str(word) for word in self.config.hydra.overrides.hydra]
        name = self.config.hydra.job.config_name
        return self.loader._parse_overrides_and_create_caching_repo(name, words)[1]

    def _with_options(self, options: tuple[str, ...]) -> DictConfig:
        if options not in self._chosen:
            self._chosen[options] = self._by_hydra(options)
        return self._chosen[options]

    def _by_hydra(self, typed: Sequence[str]) -> DictConfig:
        cfg = self.loader.load_sweep_config(self.config, list(typed))
        with open_dict(cfg):
            del cfg["hydra"]
        return cfg


def composed(compose: Composer, words: Sequence[list[str]]) -> list[DictConfig]:
    """The config of each cell; where only some lack a typed key, they are named by their options.

    Raises:
        ConfigCompositionException: no cell has a typed key, or one is typed wrongly.
        Several: some cells lack a typed key.
    """
    cfgs, refused = [], {}
    for number, typed in enumerate(counted(words, "composing", "cells")):
        try:
            cfgs.append(compose(typed))
        except ConfigCompositionException as error:
            refused[number] = error
    if not refused:
        return cfgs
    first = next(iter(refused.values()))
    if len(refused) == len(words):
        raise first
    mistakes = Mistakes([compose.chosen(typed) for typed in words])
    for number, error in refused.items():
        lacking = re.match(r"Could not override '([^']+)'", str(error))
        mistakes.add(number, ValueError(f"no key {lacking[1]}") if lacking else error)
    try:
        mistakes.tell()
    except Several as several:
        raise several from first
    raise first
