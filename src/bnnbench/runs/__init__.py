"""A run, from its config to its result: built, trained in stages, evaluated, written down."""
