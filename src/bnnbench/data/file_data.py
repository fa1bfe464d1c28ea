"""What the data modules of image files share: loaders, and the end of their workers."""

from __future__ import annotations

from bnnbench.data.augmentation import Mixing
from bnnbench.data.base import ImageData
from bnnbench.data.file_loader import FileLoader, ImageFiles
from bnnbench.data.spec import FileSpec


class FileData(ImageData):
    """Images in files, decoded by worker processes in each epoch.

    Args:
        spec: what is known of the set before it is read.

    Attributes:
        mixing: mixes the training images of a batch, where that is chosen.
    """

    spec: FileSpec
    mixing: Mixing | None = None

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self._loaders: dict[tuple[str, bool], FileLoader] = {}  # the latest of each kind

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

    def predict_dataloader(self) -> FileLoader:
        """Batches of the whole test set, for ``trainer.predict``."""
        return self.test_dataloader()

    def teardown(self, stage: str | None = None) -> None:
        """End the worker processes."""
        while self._loaders:
            self._loaders.popitem()[1].close()

    def on_exception(self, exception: BaseException) -> None:
        """End the worker processes of a run that breaks off."""
        self.teardown()

    def _loader(self, part: str, train: bool) -> FileLoader:
        if (before := self._loaders.pop((part, train), None)) is not None:
            before.close()  # the trainer reloads it
        mixing = self.mixing if train else None
        loader = FileLoader(self.files(part, train), self.spec, train, self.trainer, mixing)
        self._loaders[part, train] = loader
        return loader
