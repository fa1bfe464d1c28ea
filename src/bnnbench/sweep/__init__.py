"""Sweeps: what a command line or a table expands to, and how far it is. No torch here."""
