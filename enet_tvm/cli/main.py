"""The `enet-tvm` command: collects the verbs and turns user errors into one sentence and exit code 2."""

from __future__ import annotations

import importlib
import sys

import typer
from rich.console import Console
from typer.exceptions import TyperException

from enet_tvm.errors import UserError
from enet_tvm.text import printable
from enet_tvm.version import __version__

VERBS = (
    *("info", "data", "train", "evaluate", "fit-bias", "import-weights", "export", "calibrate", "tune", "compile", "targets"),
    *("run", "live", "verify", "profile", "roofline", "bench", "plot", "device"),
)
"""Verbs: each names a module of this package with a function `command`, or an `app` of several; heavy imports happen inside."""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"enet-tvm {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Return the typer application with every verb attached."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="ENet from PyTorch to compiled modules that a device loads without a compiler.",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
    ) -> None:
        pass

    for verb in VERBS:
        module = importlib.import_module(f"enet_tvm.cli.{verb.replace('-', '_')}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(verb)(module.command)
    # The name that `bench segnet` had.
    app.command("compare", hidden=True)(importlib.import_module("enet_tvm.cli.bench_segnet").command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 1 when a check failed, 2 on bad input."""
    try:
        _check_none_is_empty(sys.argv[1:] if arguments is None else arguments)
        code = build_app()(args=arguments, standalone_mode=False)
    except UserError as error:
        _fail(str(error))
    except TyperException as error:
        if not (message := error.format_message()):
            sys.exit(2)  # no arguments: the help was printed instead
        _fail(message)
    except (typer.Abort, KeyboardInterrupt):
        Console(stderr=True).print("interrupted", style="yellow")
        sys.exit(130)
    sys.exit(code or 0)


def _check_none_is_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, which as a path would mean the current directory."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument.strip():
            place = f"after {before}" if before.strip() else "in the command"
        elif option.startswith("--") and equals and not value.strip():
            place = f"of {option}"
        else:
            continue
        raise UserError(f"the value {place} is empty; give one (is a variable of your shell not set?)")


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[bold red]error:[/] {_escape(printable(message, keep=chr(10)))}"
    )
    sys.exit(2)


def _escape(text: str) -> str:
    from rich.markup import escape

    # A message may quote a name that somebody else has chosen.
    return escape(printable(text, keep="\n"))
