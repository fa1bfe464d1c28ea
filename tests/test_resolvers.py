"""What the config groups compute."""

from omegaconf import OmegaConf

from bnnbench import resolvers


def test_a_held_out_part_is_what_best_is_chosen_on() -> None:
    resolvers.register()
    cfg = OmegaConf.create({"a": "${evaluates_on:0.0}", "b": "${evaluates_on:0.1}"})
    assert (cfg.a, cfg.b) == ("test", "val")
