"""`enet-tvm tune`: measure kernels on the target and write a tuning log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from enet_tvm.cli.compile import CalibrationFile, Precision
from enet_tvm.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from enet_tvm.rpc.address import Address
    from enet_tvm.targets import TargetSpec
    from enet_tvm.tuning.measure import Fleet
    from enet_tvm.tuning.report import Progress, Result, SessionCost

_MINUTES, _LONG_MINUTES = 5.0, 15.0
"""Default durations; a network for a GPU compiles for a minute or two, and that twice, and a simulated trial takes a second."""


def command(
    target: Annotated[str, typer.Option(help="What to tune for: a target's name, 'native', or a .toml file.")] = "native",
    weights: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights; by default those shipped.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the input; by default the target's.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network; by default the target's cores.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures that go through the network at once.")] = 1,
    dtype: Annotated[Precision, typer.Option(help="What the network computes in; each has logs of its own.")] = "float32",
    calibration: CalibrationFile = None,
    trials: Annotated[
        int | None, typer.Option(min=0, help="Points to have measured, however long it takes; 0 shows what would be done.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time until the log is written; by default 5, of a GPU or a simulation 15.")
    ] = None,
    tracker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Tune on devices behind this RPC tracker.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the devices there; by default the target's.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory of tuning logs.")] = Path("tuning_logs"),
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="Rank kernels for an ARM processor without one, by LLVM's model of it."),
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was measured before.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Measure the network's kernels on this machine or on devices, and write down which is the fastest.

    'enet-tvm compile' then takes the log by itself. Interrupted in whatever way, the same command goes on where it was.
    The log takes the place of an older one only if the whole network is faster with it and agrees with PyTorch.

    For a GPU that is not at hand, the model of 'enet-tvm roofline' takes the place of measurements, and for an ARM processor,
    with --simulate, an emulator that counts instructions and LLVM's model of the processor. The log says so, and one that was
    measured comes before it.
    """
    from rich.console import Console

    from enet_tvm.compiler.workload import Workload
    from enet_tvm.files import write_json
    from enet_tvm.networks.weights import DEFAULT_WEIGHTS
    from enet_tvm.size import parse_size
    from enet_tvm.targets import load_target
    from enet_tvm.tuning.session import TuneRequest, tune

    if trials is not None and minutes is not None and trials > 0:
        raise UserError("give --trials or --minutes, not both")
    console, spec = Console(soft_wrap=True, highlight=False), load_target(target)
    request = TuneRequest(
        Workload(weights or DEFAULT_WEIGHTS, parse_size(size) if size else None, spec, threads, batch, dtype, calibration),
        trials=trials,
        minutes=minutes if minutes is not None or trials else _LONG_MINUTES if simulate or spec.gpu is not None else _MINUTES,
        out=out,
        fleet=fleet_of(tracker, key, spec),
        fresh=fresh,
        simulate=simulate,
    )
    shown = _shown(console)
    try:
        result = tune(request, shown)
    finally:
        shown.stop()
    figures: dict[str, Any] = {"plan": shown.planned}
    if result is not None:
        _print_result(console, result, shown.units[0])
        figures |= {"written": result.written, "reason": result.reason, "failures": result.failures}
        figures["log"] = result.log.model_dump(mode="json")
    if json is not None:
        write_json(json, figures)
    if result is not None and result.parity_failed:
        raise typer.Exit(1)


def fleet_of(tracker: str | None, key: str | None, target: TargetSpec) -> Fleet | None:
    """Return the devices that options name, None without a tracker.

    Raises
    ------
    UserError
        When the tracker cannot be reached or has no such device, or a key is given without one.
    """
    if tracker is None:
        if key is not None:
            raise UserError("--key names a device at a tracker; give --tracker HOST:PORT")
        return None
    from enet_tvm.rpc.address import parse_address
    from enet_tvm.rpc.devices import list_devices, require_device
    from enet_tvm.tuning.measure import Fleet

    address: Address = parse_address(tracker)
    name = key or target.rpc_key
    require_device(address, name)
    return Fleet(address, name, max(1, len(list_devices(address).of(name))))


def _shown(console: Console) -> Any:
    from dataclasses import asdict

    from rich import progress as bars

    from enet_tvm.tuning.report import Listener

    class Shown(Listener):
        """Prints the plan and keeps a line of progress."""

        def __init__(self) -> None:
            self.planned: dict[str, Any] | None = None
            self.units = ("ms", "us")
            columns = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(20),
                bars.MofNCompleteColumn(),
                bars.TimeElapsedColumn(),
            )
            self._bar = bars.Progress(
                *columns, bars.TextColumn("{task.fields[state]}"), console=console, disable=not console.is_terminal
            )
            self._line: Any = None

        def note(self, sentence: str) -> None:
            """Print a remark."""
            console.print(sentence, markup=False)

        def plan(self, plan: SessionCost) -> None:
            """Print the plan."""
            self.units = plan.units
            self.planned = asdict(plan) | {"directory": str(plan.directory)}
            console.print(_plan_table(plan))
            known = f", {plan.measured} of them already {'modelled' if plan.modelled else 'measured'}" if plan.measured else ""
            by = " by the model" if plan.modelled else ""
            console.print(
                f"untuned: {_ms(plan.untuned_ms)} {self.units[0]}{by}; {plan.trials} trials{known}; "
                f"about {plan.minutes:.1f} minutes; the log goes to {plan.directory}",
                markup=False,
            )

        def progress(self, progress: Progress) -> None:
            """Move the line of progress, or print one where there is no terminal."""
            state = f"network {_ms(progress.untuned_ms)} -> {_ms(progress.predicted_ms)} {self.units[0]} predicted"
            state += f", {progress.failed} failed" if progress.failed else ""
            if gains := _gains(progress, self.units[1]):
                state += f"; {gains}"
            if not console.is_terminal:
                console.print(f"{progress.stage} {progress.done}/{progress.total}: {state}", markup=False)
                return
            if self._line is None:
                self._bar.start()
                self._line = self._bar.add_task(progress.stage, total=progress.total, state=state)
            self._bar.update(self._line, description=progress.stage, completed=progress.done, total=progress.total, state=state)

        def stop(self) -> None:
            """End the line of progress."""
            self._bar.stop()

    return Shown()


def _gains(progress: Progress, unit: str, count: int = 2) -> str:
    """Return the kernels that gained most, with what they took before and after, in words."""
    ranked = sorted(progress.best, key=lambda item: item[2] / item[1])
    return ", ".join(f"{name} {old:.0f} -> {new:.0f} {unit}" for name, old, new in ranked[:count] if new < 0.98 * old)


def _ms(milliseconds: float) -> str:
    """Return milliseconds with two decimals, or three digits where a GPU takes less than one."""
    return f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.3g}"


def _plan_table(plan: SessionCost) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="What there is to tune", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("kernel", no_wrap=True)
    for heading in ("launches", "% of the time", "points"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task in plan.tasks:
        points = "open" if task.points is None else str(task.points)
        table.add_row(task.name, str(task.launches), f"{100 * task.share:.1f}", points)
    return table


def _print_result(console: Console, result: Result, unit: str) -> None:
    log = result.log
    failed = "; ".join(f"{count} x {reason}" for reason, count in result.failures.items())
    if failed:
        console.print(f"failed trials, none of which is taken: {failed}", markup=False)
    old = f", {_ms(result.old_ms)} {unit} with the log that was there" if result.old_ms is not None else ""
    where = f"by {log.host}, nothing was measured" if log.modelled else f"in turns on {log.workload.threads} threads"
    right = "it did not run, so its labels were not compared with PyTorch's"
    if log.parity is not None:
        right = (
            f"{log.parity.label_agreement:.4%} of the labels are PyTorch's, "
            f"largest logit difference {log.parity.max_abs_logit_diff:.2g}"
        )
    console.print(
        f"{_ms(log.before_ms)} {unit} untuned, {_ms(log.after_ms)} {unit} tuned{old}, {where}; "
        f"{result.changed} of {len(log.kernels) + len(log.functions)} kernels changed in {log.trials} trials, "
        f"{log.minutes:.1f} minutes; {right}",
        markup=False,
    )
    if result.written:
        console.print(f"written: {result.directory}", style="bold green", markup=False)
    else:
        console.print(f"not written: {result.reason}", style="bold yellow", markup=False)
