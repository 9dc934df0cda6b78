"""What changed between two benchmarks: figures, and the conditions they were measured under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from enet_tvm.bench.report.figures import Figures

_BESIDES = {
    "first pass, ms": ("footprint", "first_ms"),
    "load, s": ("footprint", "load_seconds"),
    "memory, bytes": ("footprint", "memory_bytes"),
    "artifact, bytes": ("artifact_bytes",),
    "transfer, ms": ("latency", "transfer_ms"),
}
"""Single figures of an entry, and the keys that lead to them."""


@dataclass(frozen=True)
class LatencyChange:
    """A runner's median latency in two benchmarks.

    Attributes
    ----------
    before_ms, after_ms : float
        Median latency in each benchmark, in milliseconds.
    spread_ms : float
        The larger of the two distances between the 10th and the 90th percentile.
    """

    before_ms: float
    after_ms: float
    spread_ms: float

    @property
    def ratio(self) -> float:
        """Latency after as a multiple of that before: below 1 is faster."""
        return self.after_ms / self.before_ms

    @property
    def exceeds_spread(self) -> bool:
        """Whether the difference is more than the calls of one run differ among themselves."""
        return abs(self.after_ms - self.before_ms) > self.spread_ms


@dataclass(frozen=True)
class RunnerChange:
    """Changes of one runner at one size and number of threads.

    Attributes
    ----------
    size : str
    threads : int
    runner : str
    latency : LatencyChange or None
        Change of the median latency; None when one of the two benchmarks has none.
    others : dict of str to (float, float)
        Other figures that both benchmarks have, before and after.
    sentences : tuple of str
        Changes that are no figures, in sentences: parity lost, a runner gone.
    """

    size: str
    threads: int
    runner: str
    latency: LatencyChange | None
    others: dict[str, tuple[float, float]]
    sentences: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        latency = self.latency
        judged = {"ratio": latency.ratio, "exceeds_spread": latency.exceeds_spread} if latency else {}
        return {
            **{key: value for key, value in vars(self).items() if key not in ("latency", "sentences")},
            "latency": {**asdict(latency), **judged} if latency else None,
            "sentences": list(self.sentences),
        }


@dataclass(frozen=True)
class Changes:
    """Two benchmarks, side by side.

    Attributes
    ----------
    runners : tuple of RunnerChange
    conditions : tuple of str
        Sentences on what else differs: machine, versions, weights, target.
    """

    runners: tuple[RunnerChange, ...]
    conditions: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"runners": [change.to_dict() for change in self.runners], "conditions": list(self.conditions)}


def find_changes(before: Sequence[Figures], after: Sequence[Figures]) -> Changes:
    """Compare two benchmarks, as `enet_tvm.bench.report.figures.load_figures` reads them.

    Results belong together when size and number of threads are the same, and entries when the runner is.
    """
    old, new = ({(result["size"], result["threads"]): result for result in results} for results in (before, after))
    runners: list[RunnerChange] = []
    conditions: dict[str, None] = {}  # in order, each once
    for key in (*old, *(key for key in new if key not in old)):
        if key not in old or key not in new:
            which = "before" if key in old else "after"
            conditions[f"{key[0]} on {key[1]} threads was measured {which} only"] = None
            continue
        runners += _runner_changes(key, old[key], new[key])
        conditions |= dict.fromkeys(_condition_changes(old[key], new[key]))
    return Changes(tuple(runners), tuple(conditions))


def _runner_changes(key: tuple[str, int], before: Figures, after: Figures) -> list[RunnerChange]:
    old, new = ({entry["name"]: entry for entry in result["entries"]} for result in (before, after))
    changes = []
    for name in (*old, *(name for name in new if name not in old)):
        if name not in old or name not in new:
            here = "before" if name in old else "after"
            changes.append(RunnerChange(*key, name, None, {}, (f"there {here} only",)))
            continue
        changes.append(_runner_change(key, old[name], new[name]))
    return changes


def _runner_change(key: tuple[str, int], before: Figures, after: Figures) -> RunnerChange:
    sentences, latency = [], None
    if before["latency"] and after["latency"]:
        latency = LatencyChange(
            before["latency"]["median_ms"],
            after["latency"]["median_ms"],
            max(times["p90_ms"] - times["p10_ms"] for times in (before["latency"], after["latency"])),
        )
    elif before["latency"] or after["latency"]:
        sentences.append("fails parity now" if before["latency"] else "failed parity before")
    if before["description"] != after["description"]:
        sentences.append(f"was {before['description']}, is {after['description']}")
    return RunnerChange(*key, before["name"], latency, _others(before, after), tuple(sentences))


def _others(before: Figures, after: Figures) -> dict[str, tuple[float, float]]:
    found = {}
    for label, path in _BESIDES.items():
        old, new = _at(before, path), _at(after, path)
        if isinstance(old, int | float) and isinstance(new, int | float) and old != new:
            found[label] = (old, new)
    old_rates, new_rates = (_rates(entry) for entry in (before, after))
    found |= {label: (rate, new_rates[label]) for label, rate in old_rates.items() if label in new_rates}
    return found


def _rates(entry: Figures) -> dict[str, float]:
    """Return throughputs and energies of an entry, by label."""
    footprint = entry.get("footprint") or {}
    rates = {f"images/s, {rate['streams']} streams": rate["images_per_second"] for rate in footprint.get("throughput", ())}
    energies = {f"J/image, {energy['meter']}": energy["joules_per_pass"] for energy in footprint.get("energy", ())}
    return rates | energies


def _at(content: Any, path: Sequence[str]) -> Any:
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _condition_changes(before: Figures, after: Figures) -> list[str]:
    found = []
    for label, path in {
        "processor": ("machine", "processor"),
        "board": ("machine", "board"),
        "processors": ("machine", "processors"),
        "memory": ("machine", "memory_bytes"),
        "GPUs": ("machine", "gpus"),
        "governor": ("machine", "governor"),
        "system": ("machine", "system"),
        "target": ("target",),
        "weights": ("weights", "sha256"),
        "seconds of measuring": ("seconds",),
    }.items():
        old, new = _at(before, path), _at(after, path)
        # A file of an older release does not say everything.
        if old is not None and new is not None and old != new:
            found.append(f"{label}: {_short(old)} before, {_short(new)} after")
    old_versions, new_versions = before.get("versions", {}), after.get("versions", {})
    for name in (*old_versions, *(name for name in new_versions if name not in old_versions)):
        old, new = old_versions.get(name, "unknown"), new_versions.get(name, "unknown")
        if old != new:
            found.append(f"version of {name}: {old} before, {new} after")
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    is_hash = len(text) == 64 and all(character in "0123456789abcdef" for character in text)
    return text[:12] if is_hash else text or "none"
