"""The runners and cases of a benchmark, from the options of its user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enet_tvm.artifact import read_manifest
from enet_tvm.bench.runners import RUNNERS, Case
from enet_tvm.bench.runners.registry import Place, runners_at
from enet_tvm.compiler.workload import Workload
from enet_tvm.errors import UserError
from enet_tvm.machine import default_threads
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file
from enet_tvm.size import DEFAULT_SIZE, Size, parse_size
from enet_tvm.targets import NATIVE, load_target


@dataclass(frozen=True)
class BenchMatrix:
    """The runners of a benchmark, and the cases that each of them runs.

    Attributes
    ----------
    runners : tuple of str
    cases : tuple of Case
        One case for each size and number of threads.
    streams : tuple of int
        Numbers of independent instances to run side by side; empty for no footprints.
    """

    runners: tuple[str, ...]
    cases: tuple[Case, ...]
    streams: tuple[int, ...]


def plan_cases(
    directory: Path,
    target: str | None = None,
    runners: Sequence[str] | None = None,
    weights: Path | None = None,
    artifact: Path | None = None,
    sizes: Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    *,
    tracker: str | None = None,
    key: str | None = None,
    streams: str = "1",
    data: str | None = None,
) -> BenchMatrix:
    """Return the runners and cases of a benchmark, with defaults for all options that were not given.

    Without runners, ours and its peers on this machine are run, those on its GPU where ours is compiled for one, or with a
    tracker the one on the device; an artifact brings its size, its weights and its target; otherwise the target is this
    machine. `data` is what other runtimes' int8 is calibrated on, as `Case.data` says.

    Raises
    ------
    UserError
        When something does not fit.
    """
    if unknown := [name for name in runners or () if name not in RUNNERS]:
        raise UserError(f"there is no runner '{unknown[0]}'; known are {', '.join(RUNNERS)}")
    if tracker is None and (afar := [name for name in runners or () if name in runners_at("tracker")]):
        raise UserError(f"the runner '{afar[0]}' runs on a device behind an RPC tracker; give --tracker HOST:PORT")
    on_gpu = False
    wanted = [parse_size(text) for text in sizes or ()]
    if artifact is not None:
        manifest = read_manifest(artifact)
        wanted = wanted or [Size(manifest.input.shape[3], manifest.input.shape[2])]
        weights = weights or (Path(manifest.weights) if manifest.weights else None)
        artifact = artifact.expanduser().resolve()
        target = target or _known(manifest.target.name)
        on_gpu = manifest.target.device != "cpu"
    target = target or NATIVE
    spec = load_target(target)
    on_gpu = on_gpu if artifact is not None else spec.gpu is not None
    place: Place = "tracker" if tracker else "gpu" if on_gpu else "cpu"
    names = tuple(runners or runners_at(place, by_default=True))
    path = find_file(weights or DEFAULT_WEIGHTS)
    counts = threads or [spec.cores if tracker else default_threads(cores=spec.core_list).threads]
    if tracker:
        wanted = wanted or [spec.size or DEFAULT_SIZE]
    cases = tuple(
        Case(Workload(path.resolve(), size, spec, count), directory, tracker, key, artifact, data=data)
        for size in wanted or [DEFAULT_SIZE]
        for count in counts
    )
    return BenchMatrix(names, cases, parse_streams(streams))


def _known(target: str) -> str | None:
    """Return a target's name if there is still a file of it: an artifact runs without."""
    try:
        return load_target(target).name
    except UserError:
        return None


def parse_streams(text: str) -> tuple[int, ...]:
    """Parse numbers of streams, such as ``1,2,4``; ``0`` stands for none.

    Raises
    ------
    UserError
        When it is no list of numbers from 1 to 64.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts == ["0"]:
        return ()
    if not all(part.isdecimal() and 1 <= int(part) <= 64 for part in parts):
        raise UserError(f"'{text}' is no list of numbers of streams; write it as 1,2,4, each from 1 to 64, or 0 for none")
    return tuple(sorted({int(part) for part in parts}))
