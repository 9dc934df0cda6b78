"""The judgement of a new log by the whole network: is it faster, and does it still agree with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from enet_tvm.artifact import LIBRARY_NAME
from enet_tvm.compiler.tuning_log import LoggedChoices, LoggedWorkload, LogTarget, Parity, TuningLog
from enet_tvm.files import sha256
from enet_tvm.tuning.baseline import Baseline
from enet_tvm.tuning.budget import Budget
from enet_tvm.tuning.contest import Choices
from enet_tvm.tuning.network import Place
from enet_tvm.tuning.report import Listener, Result
from enet_tvm.tuning.store import Store
from enet_tvm.version import __version__, stack_versions

_NO_PARITY = Parity(pictures=0, inputs="", label_agreement=0.0, max_abs_logit_diff=0.0)


@dataclass(frozen=True)
class Judge:
    """Decides whether a new log is written, in place of an older one if there is one.

    Attributes
    ----------
    network : LoggedWorkload
        Network that was tuned, with its input size and threads.
    target : LogTarget
        Target that it was tuned for.
    place : Place
        Machine or devices that the network runs on, or the model that stands for them.
    weights : Path
        Weights file of the network.
    compile : callable
        Compiles the network into the session's folder, given a name for the artifact and the `Choices` of kernels.
    baseline : Baseline
        The untuned network, whose artifact is there as ``untuned``.
    store : Store
        Folder and records of the session.
    budget : Budget
        Clock of the session, for the log.
    listener : Listener
        Receiver of a remark on each step.
    """

    network: LoggedWorkload
    target: LogTarget
    place: Place
    weights: Path
    compile: Callable[[str, Any], Any]
    baseline: Baseline
    store: Store
    budget: Budget
    listener: Listener

    def judge(self, choices: Choices) -> Result:
        """Compile the network with a new log, measure it against without and with the old one, verify it, decide."""
        kernels, functions = choices
        changed = sum(kernel.point != kernel.default for kernel in kernels) + sum(f.trace is not None for f in functions)
        if self.place.modelled and not changed:
            return self._unchanged(choices)
        self.listener.note("compiling the tuned network")
        draft = self._log(choices, self.baseline.seconds, self.baseline.seconds, _NO_PARITY)
        self.compile("tuned", LoggedChoices(draft))
        artifacts = {"untuned": self.store.work / "untuned", "tuned": self.store.work / "tuned"}
        old = self.store.old_log(self.baseline.keys)
        if old is not None and old.modelled and not self.place.modelled:
            old = None  # What was measured takes its place, whatever a model made of it.
        if old is not None:
            self.compile("old", LoggedChoices(old))
            artifacts["old"] = self.store.work / "old"
        if not self.place.modelled:
            self.listener.note("measuring the network with and without the log, in turns")
        medians = self._medians(artifacts)
        if not self.place.modelled:
            self.listener.note("comparing the tuned network with PyTorch")
        if remark := self.place.remark(artifacts):
            self.listener.note(remark)
        parity, agrees = self.place.parity(artifacts["tuned"], artifacts["untuned"], self.weights)
        log = self._log(choices, medians["untuned"], medians["tuned"], parity)
        reason = objection(medians, parity, agrees=agrees, modelled=self.place.modelled, unit=self.place.units[0])
        if not reason:
            self.store.finish(log)
        counts = self.store.failure_counts()
        old_ms = 1e3 * medians["old"] if "old" in medians else None
        return Result(log, not reason, reason, not agrees, self.store.directory, changed, counts, old_ms)

    def _unchanged(self, choices: Choices) -> Result:
        """Return that a model knows nothing better than the defaults: the network need not be compiled for that."""
        log = self._log(choices, self.baseline.seconds, self.baseline.seconds, None)
        reason = "by the model no kernel is faster at another point than at its default"
        return Result(log, False, reason, False, self.store.directory, 0, self.store.failure_counts())

    def _medians(self, artifacts: Mapping[str, Path]) -> dict[str, float]:
        """Return the median seconds of a forward pass of each artifact, measured in turns."""
        same = {name: sha256(path / LIBRARY_NAME) for name, path in artifacts.items()}
        # Equal libraries are one contestant: of two, one would be slower.
        distinct = {digest: name for name, digest in same.items()}
        found = self.place.compare({name: artifacts[name] for name in distinct.values()}, self.budget.effort.comparison)
        return {name: found[distinct[digest]] for name, digest in same.items()}

    def _log(self, choices: Choices, before: float, after: float, parity: Parity | None) -> TuningLog:
        stack = stack_versions()
        kernels, functions = choices
        return TuningLog(
            workload=self.network,
            target=self.target,
            apache_tvm=stack["apache-tvm"],
            apache_tvm_ffi=stack["apache-tvm-ffi"],
            enet_tvm=__version__,
            host=self.store.processor,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            trials=self.store.trials,
            failed=len(self.store.failures),
            minutes=round(self.budget.seconds / 60, 2),
            before_ms=round(1e3 * before, 4),
            after_ms=round(1e3 * after, 4),
            parity=parity,
            kernels=tuple(kernels),
            functions=tuple(functions),
            modelled=self.place.modelled,
            simulated=self.place.simulated,
        )


def objection(
    medians: Mapping[str, float], parity: Parity | None, *, agrees: bool, modelled: bool = False, unit: str = "ms"
) -> str:
    """Return why a log is not to be kept, in a sentence; empty when it is.

    Parameters
    ----------
    medians : mapping of str to float
        Seconds of a forward pass ``untuned``, ``tuned`` and, where there is a log already, with the ``old`` one.
    parity : Parity or None
        Agreement of the tuned network with PyTorch; None where it did not run.
    agrees : bool
        Whether that agreement is enough.
    modelled : bool
        Whether the seconds are a model's: then it must be faster, for there is no noise.
    unit : str
        What a millisecond is called.
    """
    tuned = medians["tuned"]
    if not agrees and parity is not None:
        return f"the tuned network does not agree with PyTorch: {parity.label_agreement:.4%} of the labels are the same"
    if tuned > medians["untuned"] or (modelled and tuned == medians["untuned"]):
        return f"the tuned network takes {1e3 * tuned:.2f} {unit}, not less than the untuned one"
    if tuned > medians.get("old", float("inf")):
        return f"with the log that is there the network takes {1e3 * medians['old']:.2f} {unit}, which is less"
    return ""
