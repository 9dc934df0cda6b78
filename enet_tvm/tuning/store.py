"""The folder of a session on disk, which lets it go on after an interruption, and becomes a log in the end."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import tvm

from enet_tvm.compiler.tuning_log import LOG_NAME, LoggedWorkload, LogTarget, TuningLog, read_log
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, read_json, write_json
from enet_tvm.tuning.records import TRIALS, WORKLOADS, Records
from enet_tvm.version import stack_versions

FAILURES = "failures.json"
IDENTITY = "session.json"


def identity_of(network: LoggedWorkload, target: LogTarget, processor: str) -> dict[str, Any]:
    """Return the network, target, processor and version of TVM, in which sessions that share measurements must agree."""
    return {
        "network": network.model_dump(mode="json"),
        "target": target.model_dump(mode="json"),
        "processor": processor,
        "TVM": stack_versions()["apache-tvm"],
    }


class Store:
    """The folder of an unfinished session, beside that of the log which it becomes.

    Parameters
    ----------
    directory : Path
        Directory of the tuning log.
    modelled : bool
        Whether a model says the times. Its sessions have a folder of their own, so that none removes what was measured.

    Attributes
    ----------
    work : Path
        Folder of the session; it is gone once the log is written.
    records : Records
        Measurements; set by `open_records`.
    failures : list of dict
        Kernel, point and reason of each trial that failed.
    """

    records: Records

    def __init__(self, directory: Path, modelled: bool = False) -> None:
        self.directory = directory
        self._modelled = directory.with_name(f".{directory.name}.modelled.unfinished")
        self.work = self._modelled if modelled else directory.with_name(f".{directory.name}.unfinished")
        self.failures: list[dict[str, str]] = []

    @property
    def trials(self) -> int:
        """Number of trials on disk."""
        return self.records.trials if hasattr(self, "records") else 0

    def kept(self) -> str:
        """Return a clause that says how many trials are kept, and where."""
        return f"{self.trials} trials are kept in {self.work}"

    def goes_on(self, reason: str) -> str:
        """Return a sentence that gives the reason of an early end, and says that the session can go on."""
        return f"{reason}; {self.kept()}, and the same command goes on from there"

    def begin(self, identity: dict[str, Any], note: Callable[[str], None], *, fresh: bool = False) -> None:
        """Make the folder of the session: that of an interrupted one, or of the log that is there, if it is the same.

        Parameters
        ----------
        identity : dict
            Result of `identity_of` for this session.
        note : callable
            Called with a sentence on each earlier session whose measurements are not used.
        fresh : bool
            Whether to forget earlier measurements.
        """
        source = None if fresh else self._earlier(identity, note)
        if source != self.work:
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True, exist_ok=True)
        if source is not None:
            self.failures = _read(source / FAILURES, list) or []
            if source != self.work:
                _copy(source, self.work, (WORKLOADS, TRIALS))
        shutil.rmtree(self.libraries, ignore_errors=True)
        write_json(self.work / IDENTITY, identity)

    def _earlier(self, identity: dict[str, Any], note: Callable[[str], None]) -> Path | None:
        """Return the folder of an earlier session of the same identity; None without one."""
        for source in (self.work, self.directory):
            known = _read(source / IDENTITY, dict)
            if known == identity:
                return source
            if known is not None:
                different = [key for key in identity if known.get(key) != identity[key]]
                note(f"{source} is of another {', '.join(different)}: its measurements are not used")
        return None

    @property
    def libraries(self) -> Path:
        """The folder of the kernels that are built; those of an interrupted session are not used."""
        return self.work / "libraries"

    def open_records(self, target: tvm.target.Target, keys: Collection[str]) -> None:
        """Read the records of the tasks that have these keys; those of other kernels are removed."""
        self.records = Records(self.work, target, keys)

    def add_failure(self, task: str, point: str, reason: str) -> None:
        """Write down that a trial failed."""
        self.failures.append({"kernel": task, "point": point, "reason": reason})
        write_json(self.work / FAILURES, self.failures)

    def failure_counts(self) -> dict[str, int]:
        """Return the number of failed trials by reason, the most frequent first."""
        return dict(Counter(failure["reason"] for failure in self.failures).most_common())

    @property
    def processor(self) -> str:
        """Name of the processor that the session began on."""
        return str((_read(self.work / IDENTITY, dict) or {}).get("processor", ""))

    def old_log(self, keys: Collection[str]) -> TuningLog | None:
        """Return the log that is there if it chose for one of the tasks that have these keys, else None."""
        try:
            log = read_log(self.directory)
        except UserError:
            return None
        chosen = {kernel.key for kernel in log.kernels} | {function.key for function in log.functions}
        return log if chosen & set(keys) else None

    def require_no_measured_log(self) -> None:
        """Refuse to model what was measured: where a log of measurements is, it stays.

        Raises
        ------
        UserError
            When there is one, or one that cannot be read, which may have been measured.
        """
        if not self.directory.exists():
            return
        try:
            log = read_log(self.directory)
        except UserError as error:
            raise UserError(
                f"{error}; it may have been measured: move it away, or give another directory with --out"
            ) from error
        if not log.modelled:
            raise UserError(
                f"{self.directory} was measured on {log.host}, and what a model says does not take its place; measure it "
                "again, or give another directory with --out"
            )

    def remove_if_idle(self) -> None:
        """Remove what a session made that was never to measure: all of it, unless trials are kept there and nowhere else."""
        if self.trials == 0 or (self.directory / IDENTITY).is_file():
            shutil.rmtree(self.work, ignore_errors=True)
            for folder in (self.directory.parent, self.directory.parent.parent):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def finish(self, log: TuningLog) -> None:
        """Put the log with its measurements in its place, all at once, and remove the folder of the session.

        That of a modelled session goes, too: a log that was measured leaves it nothing to do.
        """
        with atomic_directory(self.directory) as temporary:
            _copy(self.work, temporary, (WORKLOADS, TRIALS, IDENTITY, FAILURES))
            (temporary / LOG_NAME).write_text(log.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for work in (self.work, self._modelled):
            shutil.rmtree(work, ignore_errors=True)


def _copy(source: Path, target: Path, names: Collection[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _read(path: Path, kind: type[Any]) -> Any:
    """Return the content of a JSON file of an earlier session; None if it is missing, broken or of another type."""
    try:
        content = read_json(path, "tune again")
    except UserError:
        return None
    return content if isinstance(content, kind) else None
