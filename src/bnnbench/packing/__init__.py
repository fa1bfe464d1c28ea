"""From a trained network to a packed 1-bit file."""
