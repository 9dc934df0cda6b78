"""The log of a training as TensorBoard reads it; needs the extra `enet-tvm[tensorboard]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.training.trainer import Step, TrainingCost

_SCALARS = {
    "train/loss": "loss",
    "train/learning_rate": "learning_rate",
    "val/miou": "val_miou",
    "val/class_average": "val_class_average",
    "val/global_accuracy": "val_global_accuracy",
}


class TensorBoardObserver:
    """Writes event files, one point an epoch; a resumed training goes on in the same curves.

    Parameters
    ----------
    directory : str or Path
        Directory of the event files.

    Raises
    ------
    ImportError
        When the package `tensorboard` is not installed.
    """

    def __init__(self, directory: str | Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = Path(directory)
        self._open = SummaryWriter
        self._writer: Any = None

    def started(self, plan: TrainingCost) -> None:
        """Open a new event file, which supersedes points after the epochs that are done."""
        try:
            self._writer = self._open(str(self.directory), purge_step=plan.epochs_done + 1)
        except OSError as error:
            raise UserError(
                f"cannot write {self.directory}: {error.strerror}; choose another --out or free some room"
            ) from error

    def stepped(self, step: Step) -> None:
        """Do nothing: epochs are logged."""

    def epoch_done(self, row: dict[str, Any]) -> None:
        """Write the figures of an epoch, which by then is safe in its checkpoint."""
        try:
            for name, key in _SCALARS.items():
                if row[key] is not None:
                    self._writer.add_scalar(name, row[key], row["epoch"])
            self._writer.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.directory}: {error.strerror}; free some room and run it again") from error


def tensorboard_observers(directory: str | Path, say: Callable[[str], Any]) -> list[TensorBoardObserver]:
    """Return an observer that logs to ``tensorboard/`` in `directory`; none, with a sentence, where that is not installed."""
    try:
        return [TensorBoardObserver(Path(directory) / "tensorboard")]
    except ImportError:
        say("no TensorBoard log: the package tensorboard is not installed here; log.csv and curves.png hold the same figures")
        return []
