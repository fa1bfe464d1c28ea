"""bnnbench's sweeper. Hydra imports this at every start, in workers too: it imports lightly."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore

from bnnbench import resolvers
from bnnbench.sweep import devices


@dataclass
class BnnbenchSweeperConf:
    """`hydra/sweeper=bnnbench`: it has no options."""

    _target_: str = "hydra_plugins.bnnbench_sweeper.sweeper.BnnbenchSweeper"


ConfigStore.instance().store(
    group="hydra/sweeper", name="bnnbench", node=BnnbenchSweeperConf, provider="bnnbench"
)
# Launchers' workers import this module, never train.py, before they resolve their run's folder.
resolvers.register()
devices.register_resolvers()
