"""`enet-tvm targets`: what can be compiled for, and what is missing for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
    from enet_tvm.targets import TargetSpec

app = typer.Typer(no_args_is_help=True, help="The machines that can be compiled for: one file each, shipped or your own.")

Json = Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it to this file.")]


@app.command("list")
def list_targets(json: Json = None) -> None:
    """List the targets: shipped ones, those in ./targets, and this machine as 'native'."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from enet_tvm.errors import UserError
    from enet_tvm.files import write_json
    from enet_tvm.targets import NATIVE, known_targets, load_target

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("target", no_wrap=True)
    table.add_column("processor", no_wrap=True)
    table.add_column("vector unit or GPU", no_wrap=True)
    table.add_column("cores", justify="right")
    table.add_column("file", overflow="fold")
    rows: list[dict[str, Any]] = []
    for name, path in {NATIVE: None, **known_targets()}.items():
        place = _place(path)
        try:
            spec = load_target(name)
            unit = _vector_unit(spec)
        except UserError as error:
            # A file that is not valid must not hide the others.
            table.add_row(name, Text("not valid", style="red"), "", "", str(error))
            rows.append({"name": name, "file": place, "error": str(error)})
            continue
        names = ", ".join([name, *spec.aliases])
        table.add_row(names, spec.mcpu, _gpu_in_words(spec) or _in_words(unit), str(spec.cores), Text(place))
        rows.append({**_figures(spec, unit), "file": place})
    _console().print(table)
    if json is not None:
        write_json(json, rows)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A target's name, 'native', or a .toml file.")], json: Json = None
) -> None:
    """Show everything about a target, and the command that compiles for it."""
    from rich.table import Table
    from rich.text import Text

    from enet_tvm.files import write_json
    from enet_tvm.machine import number_ranges
    from enet_tvm.size import DEFAULT_SIZE
    from enet_tvm.targets import load_target, target_file

    spec = load_target(name)
    unit, place = _vector_unit(spec), _place(target_file(name))
    command = f"enet-tvm compile --target {name} -o {spec.name}"
    roofline = spec.roofline
    rows = {
        "description": spec.description,
        **({"also called": ", ".join(spec.aliases)} if spec.aliases else {}),
        "file": place,
        "platform": spec.triple,
        "processor": " ".join([spec.mcpu, *spec.mattr]),
        "vector unit": _in_words(unit),
        **({"GPU": f"{_gpu_in_words(spec)}, at most {spec.gpu.max_registers} registers a thread"} if spec.gpu else {}),
        "needs": " ".join(spec.cpu_features) or "nothing beyond it",
        "cores": f"{spec.cores}, bound to {number_ranges(spec.core_list)}" if spec.core_list else str(spec.cores),
        "memory": f"{spec.memory} MB" if spec.memory else "not said",
        "toolchain": spec.toolchain,
        "RPC key": spec.rpc_key,
        "input size": str(spec.size or f"{DEFAULT_SIZE} (where a target says none)"),
        "at most": "not said",
    }
    if roofline is not None:
        peaks = [f"{roofline.gflops:g} GFLOP/s" if roofline.gflops else "", f"{roofline.gbps:g} GB/s" if roofline.gbps else ""]
        rows["at most"] = f"{', '.join(filter(None, peaks))}. {roofline.source}"
    table = Table(title=Text(spec.name), box=None, show_header=False, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, Text(value))
    for number, note in enumerate(spec.notes):
        table.add_row("" if number else "prepare it", Text(f"- {note}"))
    table.add_row("compile", Text(command))
    _console().print(table)
    if json is not None:
        write_json(json, {**_figures(spec, unit), "file": place, "command": command})


@app.command("check")
def check(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One target; by default all of them.")] = None,
    json: Json = None,
) -> None:
    """Say what this machine lacks to compile for each target, and whether what is compiled would run here.

    Exits with 0 if all of them can be compiled for, else with 1.
    """
    from rich.text import Text

    from enet_tvm.compiler.target_check import check_target
    from enet_tvm.files import write_json
    from enet_tvm.targets import NATIVE, known_targets

    console = _console()
    found = [check_target(one) for one in ([name] if name else [NATIVE, *known_targets()])]
    for one in found:
        verdict = ("[green]can be compiled for[/]" if one.compiles else "[red]cannot be compiled for[/]") + (
            ", and runs here" if one.runs_here else ""
        )
        console.print(Text(one.name, style="bold"), verdict, soft_wrap=True)
        for problem in one.problems:
            console.print(f"  - {problem}", markup=False, soft_wrap=True)
        for obstacle in one.obstacles:
            console.print(f"  - does not run here: {obstacle}", markup=False, soft_wrap=True)
        if name and one.linker:
            console.print(f"  - linked by {one.linker}", markup=False, soft_wrap=True)
    if json is not None:
        write_json(json, [one.to_dict() for one in found])
    if not all(one.compiles for one in found):
        raise typer.Exit(1)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the target, and of its file in ./targets.")],
    like: Annotated[
        str | None, typer.Option(metavar="TARGET", help="Take what is not given from this target; 'native' is this machine.")
    ] = None,
    description: Annotated[str | None, typer.Option(help="Which machines it stands for.")] = None,
    triple: Annotated[str | None, typer.Option(help="x86_64-linux-gnu or aarch64-linux-gnu.")] = None,
    mcpu: Annotated[str | None, typer.Option(help="LLVM's name of the processor, such as cortex-a72.")] = None,
    mattr: Annotated[list[str] | None, typer.Option(help="An LLVM feature, +NAME or --mattr=-NAME; repeat it.")] = None,
    cpu_feature: Annotated[
        list[str] | None, typer.Option(help="What /proc/cpuinfo of the machine must list; repeat it.")
    ] = None,
    cores: Annotated[int | None, typer.Option(help="Cores that the network will run on.")] = None,
    core: Annotated[list[int] | None, typer.Option(help="Number of a core to bind threads to; repeat it for each.")] = None,
    memory: Annotated[int | None, typer.Option(help="Main memory, in MB.")] = None,
    toolchain: Annotated[str | None, typer.Option(help="auto, system or zig.")] = None,
    rpc_key: Annotated[str | None, typer.Option(help="Its name at an RPC tracker; by default the target's.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the input when nobody says it.")] = None,
    note: Annotated[list[str] | None, typer.Option(help="A sentence on how to prepare the board; repeat it.")] = None,
) -> None:
    """Write ./targets/NAME.toml, a target of your own; an existing file is left alone."""
    from enet_tvm.targets.writing import new_target

    given = {
        "description": description, "triple": triple, "mcpu": mcpu, "mattr": mattr, "cpu_features": cpu_feature,
        "cores": cores, "core_list": core, "memory": memory, "toolchain": toolchain, "rpc_key": rpc_key, "size": size,
        "notes": note,
    }  # fmt: skip
    # Typer makes an empty list of an option that may be repeated and was not given.
    path = new_target(name, {key: value for key, value in given.items() if value not in (None, [])}, like)
    _console().print(f"wrote {path}; next: enet-tvm targets check {name}", markup=False, soft_wrap=True)


def _console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    # A file or a pipe has no edge to keep to.
    return console if console.is_terminal else Console(width=160, highlight=False)


def _place(path: Path | None) -> str:
    if path is None:
        return "this machine"
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _vector_unit(spec: TargetSpec) -> VectorUnit:
    from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit

    target = spec.to_tvm()
    return VectorUnit.of(target if spec.gpu is None else target.host)


def _in_words(unit: VectorUnit) -> str:
    return f"{unit.lanes} x float32, {unit.registers} registers"


def _gpu_in_words(spec: TargetSpec) -> str:
    gpu = spec.gpu
    return f"{gpu.arch}, {gpu.multiprocessors} multiprocessors, PTX {gpu.ptx}" if gpu is not None else ""


def _figures(spec: TargetSpec, unit: VectorUnit) -> dict[str, Any]:
    from dataclasses import asdict

    return {**spec.model_dump(mode="json"), "vector_unit": asdict(unit)}
