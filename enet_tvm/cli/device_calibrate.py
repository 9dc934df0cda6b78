"""`enet-tvm device calibrate`: the constants of a GPU's model, measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.compiler.cuda.calibration import Calibration
    from enet_tvm.compiler.cuda.cost import Chip


def calibrate(
    target: Annotated[str, typer.Option(help="The target whose GPU is measured: its name, or a .toml file.")],
    tracker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Measure a device behind this RPC tracker.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the device there; by default the target's.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="File to write; by default calibrations/TARGET.toml.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure what 'roofline' and 'tune' assume of a GPU: its clock, its memory, its caches, its launches. It takes a minute.

    Run where 'calibrations/TARGET.toml' is, both take it by themselves, and say so.
    """
    from rich.console import Console

    from enet_tvm.cli.tune import fleet_of
    from enet_tvm.compiler.cuda.calibration import CALIBRATIONS
    from enet_tvm.compiler.cuda.cost import Chip
    from enet_tvm.files import write_json
    from enet_tvm.targets import load_target
    from enet_tvm.tuning.gpu_calibration import calibrate_gpu

    console, spec = Console(soft_wrap=True, highlight=False), load_target(target)
    known = Chip.of(spec)
    calibration = calibrate_gpu(spec, fleet_of(tracker, key, spec), lambda sentence: console.print(sentence, markup=False))
    console.print(_table(calibration, known))
    path = out or Path(CALIBRATIONS) / f"{spec.name}.toml"
    calibration.write(path)
    console.print(f"written: {path}", style="bold green", markup=False)
    if json is not None:
        write_json(json, calibration.model_dump(mode="json"))


_FIGURES = {
    "ghz": ("clock", "GHz"),
    "gbps": ("main memory", "GB/s"),
    "l2_bytes": ("L2", "bytes a clock and multiprocessor"),
    "l1_bytes": ("L1", "bytes a clock and multiprocessor"),
    "shared_bytes": ("shared memory", "bytes a clock and multiprocessor"),
    "latency": ("latency of L1", "clocks"),
    "memory_latency": ("latency of memory", "clocks"),
    "launch_us": ("between two launches", "microseconds"),
}


def _table(calibration: Calibration, known: Chip) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{calibration.gpu}, {calibration.multiprocessors} multiprocessors of {calibration.arch}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("figure", no_wrap=True)
    for heading in ("documents", "measured"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for name, measured in calibration.constants:
        words, unit = _FIGURES[name]
        before = getattr(known, name, None) or getattr(known.multiprocessor, name)
        table.add_row(words, f"{before:.4g}", f"{measured:.4g}", unit)
    return table
