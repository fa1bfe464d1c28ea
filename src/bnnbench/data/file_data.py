"""What the data modules of image files share: arguments, loaders, and the end of their workers."""

from __future__ import annotations

from collections.abc import Sequence

from bnnbench.data.base import ImageData, check_normalisation
from bnnbench.data.file_loader import FileLoader, ImageFiles
from bnnbench.data.known import check_whole


class FileData(ImageData):
    """Images in files, decoded by worker processes in each epoch.

    Args:
        batch_size: training images a step and device.
        in_channels: 3, images are read as RGB.
        image_size: pixels of the square image that a network sees.
        mean, std: per channel, of pixels scaled to [0, 1].
        workers: processes that decode (0: this one); ``auto`` shares the CPU's cores among the
            devices.
        val_fraction: held-out part of the training set, in [0, 1).
        seed: what shuffling and augmentation start from.
        channels_last: memory format of the batches.
        eval_batch_size: images a step in evaluation.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        batch_size: int,
        in_channels: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        workers: int | str,
        val_fraction: float,
        seed: int,
        channels_last: bool,
        eval_batch_size: int,
    ) -> None:
        super().__init__(val_fraction, seed, batch_size)
        if in_channels != 3:
            raise ValueError(f"dataset.in_channels={in_channels}: image files are read as RGB, 3")
        check_normalisation(in_channels, mean, std)
        check_whole("image_size", image_size, 1, "use at least 1 pixel")
        check_whole("eval_batch_size", eval_batch_size, 1, "use at least 1")
        if workers != "auto" and (isinstance(workers, str) or workers < 0):
            raise ValueError(f"dataset.workers={workers}: use auto or a number from 0 on")
        self.in_channels, self.image_size, self.workers = in_channels, image_size, workers
        self.mean, self.std = tuple(mean), tuple(std)
        self.eval_batch_size, self.channels_last = eval_batch_size, channels_last
        self._loaders: list[FileLoader] = []

    def files(self, part: str, train: bool) -> ImageFiles:
        """The images of a part, augmented in training."""
        raise NotImplementedError

    def train_dataloader(self) -> FileLoader:
        """Shuffled, augmented batches of the training set."""
        return self._loader("train", train=True)

    def val_dataloader(self) -> FileLoader:
        """Batches of the held-out part, or of the test set where nothing is held out."""
        return self._loader(self.evaluates_on, train=False)

    def test_dataloader(self) -> FileLoader:
        """Batches of the whole test set."""
        return self._loader("test", train=False)

    def teardown(self, stage: str | None = None) -> None:
        """End the worker processes."""
        while self._loaders:
            self._loaders.pop().close()

    def on_exception(self, exception: BaseException) -> None:
        """End the worker processes of a run that breaks off."""
        self.teardown()

    def _loader(self, part: str, train: bool) -> FileLoader:
        loader = FileLoader(
            self.files(part, train),
            self.batch_size if train else self.eval_batch_size,
            train,
            self.mean,
            self.std,
            self.workers,
            self.trainer,
            self.channels_last,
        )
        self._loaders.append(loader)
        return loader
