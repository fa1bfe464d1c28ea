"""Published numbers, comparison tables and curves, built from the JSON files that runs leave.

Nothing here imports torch: a sweep renders its table at the end of every call.
"""
