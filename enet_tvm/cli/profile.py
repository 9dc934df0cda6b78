"""`enet-tvm profile`: where the time of a forward pass goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.bench.measure.profile import Profile


def command(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that 'enet-tvm compile' wrote.")],
    passes: Annotated[int, typer.Option(min=1, help="Forward passes to take medians of.")] = 30,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the network; all by default.")] = None,
    sort: Annotated[bool, typer.Option("--sort", help="Slowest first, instead of in launch order.")] = False,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Time every kernel of a compiled network, beside what this machine could do at best.

    The limits are measured in the same run: a large matrix product and a large copy in PyTorch, on as many threads, or on the
    GPU if the network runs there; without a PyTorch that has CUDA, they are what the GPU's driver or the target says.
    Operations are those of direct sums, which kernels named 'winograd' do without most of: they exceed the limit.
    """
    from rich.console import Console

    from enet_tvm.bench.measure.profile import profile
    from enet_tvm.files import write_json
    from enet_tvm.runtime import Segmenter

    console = Console(soft_wrap=True, highlight=False)
    with Segmenter.load(artifact, threads, adaptive=False) as segmenter, console.status(f"running {2 * passes} forward passes"):
        result = profile(segmenter, passes)
        place = f"{segmenter.threads} threads" if segmenter.manifest.target.device == "cpu" else "the GPU"
    console.print(_table(result, sort))
    console.print(
        f"{len(result.kernels)} kernels take {1e3 * result.total:.2f} ms, the whole pass {1e3 * result.whole:.2f} ms on "
        f"{place}; {_limit(result)}"
    )
    if json is not None:
        write_json(json, result.to_dict())


def _limit(result: Profile) -> str:
    from enet_tvm.bench.measure.roofline import MEASURED

    if result.roofline is None:
        return "what the GPU could do at best is not known: neither its driver nor the target says so"
    takes = result.flops / result.roofline.flops_per_second
    text = f"the arithmetic alone, at {result.roofline.flops_per_second / 1e9:.0f} GFLOP/s, takes {1e3 * takes:.2f} ms"
    return text if result.source == MEASURED else f"{text} (by {result.source})"


def _table(result: Profile, sort: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Forward pass, kernel by kernel", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("kernel", no_wrap=True)
    for heading in ("ms", "%", "MFLOP", "GFLOP/s", "GB/s", "of limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    kernels = sorted(result.kernels, key=lambda kernel: -kernel.seconds) if sort else result.kernels
    for kernel in kernels:
        share = result.share_of_roofline(kernel)
        table.add_row(
            kernel.layers[-1] if kernel.layers else kernel.name,
            f"{1e3 * kernel.seconds:.3f}",
            f"{100 * kernel.seconds / result.total:.1f}",
            f"{kernel.flops / 1e6:,.1f}" if kernel.flops else "",
            f"{kernel.flops / kernel.seconds / 1e9:.0f}" if kernel.flops else "",
            f"{kernel.bytes / kernel.seconds / 1e9:.1f}",
            "" if share is None else f"{share:.0%}",
        )
    return table
