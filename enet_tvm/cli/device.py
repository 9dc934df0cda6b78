"""`enet-tvm device`: boards, what they need, and how to reach them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from enet_tvm.cli.device_bundle import bundle
from enet_tvm.cli.device_calibrate import calibrate

if TYPE_CHECKING:
    from rich.table import Table

    from enet_tvm.rpc.devices import Devices

app = typer.Typer(no_args_is_help=True, help="Boards that run compiled networks: what they need, and how to reach them.")
app.command("bundle")(bundle)
app.command("calibrate")(calibrate)

RCE = "RPC runs whatever code it is sent, by design: use it only on a network that you trust."


@app.command("tracker", epilog=RCE)
def tracker(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")] = 9190,
) -> None:
    """Run the tracker, where boards offer themselves and 'bench', 'verify' and 'tune' look for one; until Ctrl-C.

    It listens on this machine alone unless --host is given: boards need 0.0.0.0, or this machine's address in their network.
    """
    from enet_tvm.rpc.address import Address, parse_host
    from enet_tvm.rpc.tracker import run_tracker

    host = parse_host(host, "--host")

    def ready(port: int) -> None:
        typer.echo(f"tracker on {Address(host, port)}; stop it with Ctrl-C")
        if host in ("127.0.0.1", "::1", "localhost"):
            typer.echo("only this machine can reach it; for boards, give --host 0.0.0.0")

    run_tracker(host, port, ready)


@app.command("serve", epilog=RCE)
def serve(
    tracker: Annotated[str, typer.Option(metavar="HOST:PORT", help="The tracker to register at.")],
    key: Annotated[str, typer.Option(help="Name of this kind of board there, such as rpi4: the RPC key of its target.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="First of 100 ports to try; 0 for any.")] = 9090,
    session_seconds: Annotated[float, typer.Option(min=1, help="Longest session, whatever a client asks for.")] = 3600.0,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where uploads lie during a session; the temporary folder by default.")
    ] = None,
    custom_addr: Annotated[
        str | None, typer.Option(metavar="HOST", help="By which clients reach this machine, where the tracker sees another.")
    ] = None,
) -> None:
    """Offer this machine to whoever asks the tracker for its key, one at a time; until Ctrl-C.

    It survives a session that crashes or takes too long, and registers again when the tracker comes back. A board without this
    package does the same with a bundle ('enet-tvm device bundle').
    """
    import time

    from enet_tvm.rpc.address import Address, parse_address, parse_host
    from enet_tvm.rpc.server import WARNING, ServerSettings
    from enet_tvm.rpc.server import serve as run_server

    def log(line: str) -> None:
        typer.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    settings = ServerSettings(
        key,
        parse_address(tracker),
        parse_host(host, "--host"),
        port,
        session_seconds,
        folder,
        parse_host(custom_addr, "--custom-addr") if custom_addr else None,
    )
    typer.echo(f"mind: {WARNING}")
    run_server(settings, log, lambda port: log(f"serving {key} on {Address(settings.host, port)}; stop it with Ctrl-C"))


@app.command("list")
def list_devices(
    tracker: Annotated[str, typer.Option(metavar="HOST:PORT", help="The tracker to ask.")] = "127.0.0.1:9190",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write it to this file.")] = None,
) -> None:
    """List the boards at a tracker: their keys, and which of them are free."""
    from rich.console import Console

    from enet_tvm.files import write_json
    from enet_tvm.rpc.address import parse_address
    from enet_tvm.rpc.devices import list_devices as ask
    from enet_tvm.rpc.messages import LONGEST_KEY
    from enet_tvm.text import printable

    console = Console(soft_wrap=True, highlight=False)
    address = parse_address(tracker)
    found = ask(address)
    if found.devices:
        console.print(_table(found))
    else:
        how = f"enet-tvm device serve --tracker {address} --key NAME"
        console.print(f"no board is registered at {address}; on one, run: {how}", markup=False)
    for key, waiting in sorted(found.waiting.items()):
        if waiting:
            console.print(f"{waiting} wait for '{printable(key, LONGEST_KEY)}'", markup=False)
    if json is not None:
        write_json(json, found.to_dict())


def _table(found: Devices) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from enet_tvm.rpc.messages import LONGEST_KEY
    from enet_tvm.text import printable

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("key", "address", "state", "free of this key"):
        table.add_column(heading, no_wrap=True)
    states = {True: "[green]free[/]", False: "[yellow]in use[/]", None: "not said"}
    for device in found.devices:
        free = f"{found.free.get(device.key, 0)} of {len(found.of(device.key))}"
        table.add_row(Text(printable(device.key, LONGEST_KEY)), Text(str(device.address)), states[device.free], free)
    return table
