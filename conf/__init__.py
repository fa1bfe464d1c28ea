"""The config groups, importable as ``bnnbench.conf`` for Hydra's ``initialize_config_module``."""
