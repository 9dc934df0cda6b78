"""`enet-tvm compile`: from weights to an artifact that a device loads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from enet_tvm.artifact import Manifest

Precision = Literal["float32", "float16", "bfloat16", "int8"]
Output = Literal["logits", "labels"]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="For int8: of 'enet-tvm calibrate'; by default the one beside the weights."),
]


def command(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Directory of the artifact; an old one is replaced.")],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Weights, or an ONNX file of 'export'; by default those shipped.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the input, both sides divisible by 8; by default the target's, or 640x360."),
    ] = None,
    target: Annotated[str, typer.Option(help="What to compile for: a target's name, 'native', or a .toml file.")] = "native",
    batch: Annotated[int, typer.Option(min=1, max=64, help="Pictures that go through the network at once.")] = 1,
    dtype: Annotated[
        Precision,
        typer.Option(
            help="What it computes in; the others are faster, nearly as accurate, and need a CPU that has them; GPUs: float16."
        ),
    ] = "float32",
    output: Annotated[
        Output, typer.Option(help="What it returns: logits, or at once the labels, which saves writing and reading logits.")
    ] = "logits",
    calibration: CalibrationFile = None,
    untuned: Annotated[bool, typer.Option("--untuned", "--no-tuning", help="Ignore tuning logs.")] = False,
    tuning_log: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Tuning log to use; by default the one that fits, of 'tuning_logs'.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads it will run on, which picks the log; by default the target's cores."),
    ] = None,
    dump_ir: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the module after each phase here.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Compile a network for a processor or a GPU: no tuning, no compiler on the device.

    The artifact is a directory with a shared library and a manifest that says what it is of; 'enet-tvm run' uses it.
    """
    import shlex
    import sys
    import time

    from rich.console import Console

    from enet_tvm.files import write_json
    from enet_tvm.size import parse_size
    from enet_tvm.targets import load_target

    console = Console(soft_wrap=True, highlight=False)
    wanted, spec = parse_size(size) if size else None, load_target(target)
    processor = spec.mcpu if spec.gpu is None else f"{spec.gpu.arch}, {spec.mcpu}"
    with console.status(f"compiling for {spec.name} ({processor}); this takes half a minute, for some GPUs more than one"):
        from enet_tvm.compiler.compile import CompileRequest, compile_artifact
        from enet_tvm.compiler.workload import Workload
        from enet_tvm.networks.weights import DEFAULT_WEIGHTS

        line = shlex.join(["enet-tvm", *sys.argv[1:]])
        workload = Workload(weights or DEFAULT_WEIGHTS, wanted, spec, threads, batch, dtype, calibration)
        request = CompileRequest(workload, dump_ir, line, untuned, tuning_log, labels=output == "labels")
        start = time.perf_counter()
        manifest = compile_artifact(request, out, say=lambda sentence: console.print(sentence, markup=False))
        seconds = time.perf_counter() - start
    library = out / manifest.library
    console.print(
        f"{out}: {manifest.network} with {len(manifest.classes)} classes at {_size(manifest)} in {manifest.dtype} "
        f"for {spec.name} ({processor}), "
        f"{manifest.kernel_count} kernels, {library.stat().st_size / 1e6:.1f} MB, in {seconds:.0f} s",
        markup=False,
    )
    console.print(f"inspected: {manifest.library_report}", markup=False)
    if json is not None:
        write_json(json, _figures(manifest, library, seconds))


def _size(manifest: Manifest) -> str:
    return f"{manifest.input.shape[3]}x{manifest.input.shape[2]}"


def _figures(manifest: Manifest, library: Path, seconds: float) -> dict[str, object]:
    return {
        "dtype": manifest.dtype,
        "output": manifest.output.model_dump(mode="json"),
        "kernel_count": manifest.kernel_count,
        "library_bytes": library.stat().st_size,
        "seconds": seconds,
        "library": manifest.library_report.model_dump() if manifest.library_report else None,
        "target": manifest.target.model_dump(),
        "tuning": manifest.tuning.model_dump() if manifest.tuning else None,
        "hashes": manifest.hashes.model_dump(),
    }
