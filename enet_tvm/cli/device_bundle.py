"""`enet-tvm device bundle`: everything that a board needs, in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bundle(
    target: Annotated[str, typer.Option(help="The board: a target's name, 'native', or a .toml file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.tar.gz", help="The bundle; an old one is replaced.")],
    variant: Annotated[str, typer.Option(help="'c' for any board, or 'python' for one with Python 3.11 or later.")] = "c",
    python: Annotated[str, typer.Option(help="The board's version of Python; only for the variant 'python'.")] = "3.11",
    artifact: Annotated[Path | None, typer.Option(metavar="DIR", help="Put this artifact of 'enet-tvm compile' in.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the board at the tracker; by default the target's.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write what is in it to this file.")] = None,
) -> None:
    """Pack what a board needs: TVM's runtime, a runner, an RPC server, a start script and a systemd unit.

    Nothing is installed on the board: unpack the file there and follow its README.txt.
    """
    from rich.console import Console

    from enet_tvm.device_bundle import BundleRequest, write_bundle
    from enet_tvm.files import write_json
    from enet_tvm.targets import load_target

    console = Console(soft_wrap=True, highlight=False)
    request = BundleRequest(load_target(target), variant, python, artifact, key)
    with console.status("packing; the first time, TVM for the board is downloaded (100 MB)"):
        manifest = write_bundle(request, output)
    console.print(
        f"{output}: {manifest.variant} variant for {manifest.target} ({manifest.architecture}), {len(manifest.files)} files, "
        f"{output.stat().st_size / 1e6:.1f} MB, needs glibc {manifest.glibc} or later",
        markup=False,
    )
    for need in manifest.needs:
        console.print(f"the board must have {need}", markup=False)
    if json is not None:
        write_json(json, manifest.model_dump())
