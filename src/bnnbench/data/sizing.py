"""How long, and in which batches, a set of somebody's own is trained on, by its training images.

A recipe states both for the sets that it knows by name; for any other these rules stand in. They
count the training images before ``val_fraction`` holds a part of them out, so that a search and the
run after it have the same batches.
"""

from __future__ import annotations

LEAST_BATCH, MOST_BATCH = 16, 128
STEPS_AN_EPOCH = 20  # at least, where the smallest batch leaves as many
STEPS = 8000  # of a run, about
LEAST_EPOCHS, MOST_EPOCHS = 10, 200


def batch_size_for(train_images: int) -> int:
    """The largest power of two from 16 to 128 that leaves an epoch 20 steps; else 16."""
    size = MOST_BATCH
    while size > LEAST_BATCH and train_images // size < STEPS_AN_EPOCH:
        size //= 2
    return size


def epochs_for(train_images: int) -> int:
    """Epochs of about 8000 steps in all, from 10 to 200."""
    steps = max(train_images // batch_size_for(train_images), 1)
    return min(max(round(STEPS / steps), LEAST_EPOCHS), MOST_EPOCHS)


def effective_size_for(train_images: int) -> int:
    """Ten times the number of training images, as BayesBiNN's authors have it."""
    return 10 * train_images
