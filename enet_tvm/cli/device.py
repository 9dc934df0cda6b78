"""`enet-tvm device`: boards, and what they need."""

from __future__ import annotations

import typer

from enet_tvm.cli.device_bundle import bundle

app = typer.Typer(no_args_is_help=True, help="Boards that run compiled networks: what they need, and how to reach them.")
app.command("bundle")(bundle)
