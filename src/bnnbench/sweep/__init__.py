"""Sweeps: what a run is called, which are finished, what a table expands to. No torch here."""
