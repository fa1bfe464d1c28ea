"""What a run is called and leaves behind. Nothing here imports torch at start but checkpoints."""
