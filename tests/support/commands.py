"""Whether a command that a text shows is one: each program's own parser reads it."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import typer.main
from markdown_files import ROOT
from packaging.requirements import Requirement
from scripts import load_script
from typer.exceptions import TyperException

from enet_tvm import demo
from enet_tvm.cli.main import VERBS, build_app
from enet_tvm.errors import UserError
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import parse_size
from enet_tvm.targets import load_target
from enet_tvm.training.recipe import built_in_recipes

OTHERS = frozenset({"apt", "apt-get", "cd", "scp", "tar", "tensorboard", "git"})
"""Programs that are not this project's; what they are given is not looked at."""

VARIABLES = re.compile(r"[A-Z_]+=.*", re.DOTALL)


class NoCommandError(AssertionError):
    """A text shows a command that does not work; the message says why."""


def check_command(line: str, complete: bool = True) -> list[str]:
    """Parse a line of a shell as the programs in it would, without running them.

    Parameters
    ----------
    line : str
        Of one or several commands, with or without a comment.
    complete : bool
        Whether what a program requires must be there; False for a command within a sentence, which may show a part.

    Returns
    -------
    list of str
        The programs that it starts.

    Raises
    ------
    NoCommandError
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
    lexer.whitespace_split = True
    programs: list[str] = []
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word.strip("();&|"):
            words.append(word)
        elif words:
            programs += _check_words(words, complete)
            words = []
    return programs


def alternatives(text: str) -> Iterator[str]:
    """Spell out ``a|b`` and ``x/[y]`` in a command within a sentence: each reading of it."""
    words = text.replace("[", "").replace("]", "").split(" ")
    for reading in product(*(word.split("|") for word in words)):
        yield " ".join(reading)


def is_command(text: str) -> bool:
    """Whether code within a sentence is a command: of a program known here, or a verb with more after it."""
    first, _, rest = text.partition(" ")
    return Path(first).name in {*_PROGRAMS} or (first in VERBS and bool(rest))


def check_inline(text: str) -> list[str]:
    """Check a command within a sentence, which may leave the program and what it requires out."""
    programs = []
    for reading in alternatives(text):
        first = reading.partition(" ")[0]
        programs += check_command(f"enet-tvm {reading}" if first in VERBS else reading, complete=False)
    return programs


@cache
def all_options() -> frozenset[str]:
    """Every option of every program of this project."""
    parsers = [demo.build_parser(), *map(_argparse, ("enet_tvm.rpc.server", "enet_tvm.runtime"))]
    lines = [line.strip().partition("  ")[0] for parser in parsers for line in parser.format_help().splitlines()]
    options = {option for line in lines if line.startswith("-") for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}
    scripts = sorted(path for folder in ("benchmarks", "tools") for path in (ROOT / folder).glob("*.py"))
    for command in [_typer_app(), *map(_script, scripts)]:
        options |= set(_options(command))
    return frozenset(options | _c_options())


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts, "--help")
    for inner in getattr(command, "commands", {}).values():
        yield from _options(inner)


@cache
def _c_options() -> set[str]:
    sources = (ROOT / "enet_tvm/device_bundle/csrc").glob("*.c")
    long = re.compile(r'\{"([a-z-]+)",\s*[0-2],\s*NULL,')  # of getopt_long
    return {f"--{name}" for source in sources for name in long.findall(source.read_text())}


def _check_words(words: list[str], complete: bool) -> list[str]:
    while words and (words[0] == "sudo" or VARIABLES.fullmatch(words[0])):
        words = words[1:]
    if not words:
        return []
    program, arguments = Path(words[0]).name, [word for word in words[1:] if word != "..."]
    if program in OTHERS:
        return [program]
    if program not in _PROGRAMS:
        raise NoCommandError(f"{words[0]} is no program that is known here")
    if words[0].startswith(("bin/", "./", ".ci/", "tools/")) and program not in (*_OF_A_BUNDLE, "enet-tvm"):
        _there(words[0])
    return _PROGRAMS[program](arguments, complete) or [program]


def _there(path: str) -> None:
    if not (ROOT / path).is_file():
        raise NoCommandError(f"there is no {path}")


@cache
def _typer_app() -> Any:
    return typer.main.get_command(build_app())


def _enet_tvm(arguments: list[str], complete: bool) -> None:
    command, name, arguments = _typer_app(), "enet-tvm", list(arguments)
    while hasattr(command, "commands"):
        if not arguments or arguments[0] in ("--help", "--version"):
            return
        if command.invoke_without_command and arguments[0].startswith("-"):
            break  # a verb that has verbs of its own, such as bench
        if (verb := arguments.pop(0)) not in command.commands:
            raise NoCommandError(f"{name} has no '{verb}'")
        command, name = command.commands[verb], f"{name} {verb}"
    _click(command, name, arguments, complete)


def _click(command: Any, name: str, arguments: list[str], complete: bool) -> None:
    try:
        given = command.make_context(name, [word for word in arguments if word != "--help"]).params
    except TyperException as error:
        part_of_it = ("Missing ", "Option ")  # without what it requires, or an option without its value
        if complete or not error.format_message().startswith(part_of_it):
            raise NoCommandError(f"{name}: {error.format_message()}") from error
        return
    _check_values(name, given)


def _check_values(name: str, given: dict[str, Any]) -> None:
    """Check what the parsers take for text: sizes, and names of recipes, targets and networks."""
    try:
        for size in [given.get("size")] if isinstance(given.get("size"), str) else given.get("size") or []:
            parse_size(size)
        targets = [given["target"]] if isinstance(given.get("target"), str) else given.get("target") or []
        for target in [name for name in targets if name not in ("native", "TARGET") and not name.endswith(".toml")]:
            load_target(target)
    except UserError as error:
        raise NoCommandError(f"{name}: {error}") from error
    recipe, network = given.get("recipe"), given.get("network")
    if recipe and not recipe.endswith(".toml") and recipe not in built_in_recipes():
        raise NoCommandError(f"{name}: there is no recipe {recipe}")
    if network and network not in NETWORKS:
        raise NoCommandError(f"{name}: there is no network {network}")


def _python(arguments: list[str], complete: bool) -> list[str]:
    if not arguments:
        return ["python"]
    first, *rest = arguments
    if first != "-m":
        _there(first)
        if first.startswith(("benchmarks/", "tools/")):
            _click(_script(ROOT / first), first, rest, complete)
        return [first]
    module, *rest = rest
    match module:
        case "enet_tvm":
            _enet_tvm(rest, complete)
            return ["enet-tvm"]
        case "pytest":
            _pytest(rest, complete)
        case "enet_tvm.demo":
            _parse(demo.build_parser(), rest, complete)
        case "enet_tvm.rpc.server" | "enet_tvm.runtime":
            _parse(_argparse(module), rest, complete)
        case _ if importlib.util.find_spec(module) is None:
            raise NoCommandError(f"there is no module {module}")
    return [module]


@cache
def _argparse(module: str) -> argparse.ArgumentParser:
    """The parser that a module's `main` makes for itself."""
    made: list[argparse.ArgumentParser] = []

    class Made(Exception):  # noqa: N818 - not an error
        pass

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        made.append(self)
        raise Made

    name = module if not (ROOT / module.replace(".", "/")).is_dir() else f"{module}.__main__"
    main = importlib.import_module(name).main
    original = argparse.ArgumentParser.parse_args
    argparse.ArgumentParser.parse_args = stop  # type: ignore[method-assign, assignment]
    try:
        main([])
    except Made:
        pass
    finally:
        argparse.ArgumentParser.parse_args = original  # type: ignore[method-assign]
    return made[0]


def _parse(parser: argparse.ArgumentParser, arguments: list[str], complete: bool) -> None:
    said: list[str] = []

    def error(message: str) -> None:
        said.append(message)
        raise NoCommandError(f"{parser.prog}: {message}")

    parser.error = error  # type: ignore[method-assign, assignment]
    try:
        parser.parse_args([word for word in arguments if word != "--help"])
    except NoCommandError:
        if complete or "are required" not in said[0]:
            raise


@cache
def _script(path: Path) -> Any:
    """The command of a script that hands its `main` to typer."""
    app = typer.Typer()
    app.command()(load_script(path).main)
    return typer.main.get_command(app)


def _torchrun(arguments: list[str], complete: bool) -> list[str]:
    from torch.distributed.run import get_args_parser

    at = arguments.index("-m") if "-m" in arguments else len(arguments)
    _parse(get_args_parser(), [*arguments[:at], "script"], complete)
    return ["torchrun", *(_python(arguments[at:], complete) if at < len(arguments) else [])]


def _make(arguments: list[str], complete: bool) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        if "=" in word:
            name = word.partition("=")[0]
            if f"$({name})" not in makefile:
                raise NoCommandError(f"make: the Makefile uses no {name}")
            continue
        # With a Python given, the Makefile does not look for one.
        command = ["make", "-n", "PYTHON=python3", word]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        if "No rule to make target" in result.stderr:
            raise NoCommandError(f"make: {result.stderr.strip()}")


@cache
def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _pip(arguments: list[str], complete: bool) -> None:
    """Check what is installed: extras that exist, and versions that are those of pyproject.toml."""
    for word in arguments[1:]:
        if word.startswith("-") or word == ".":
            continue
        wanted = Requirement(word)
        extras = _project()["project"]["optional-dependencies"]
        if wanted.name == "enet-tvm" and (unknown := wanted.extras - extras.keys()):
            raise NoCommandError(f"pip: there is no extra {', '.join(unknown)}")
        own = [Requirement(line) for line in _project()["project"]["dependencies"]]
        if any(one.name == wanted.name and one.specifier != wanted.specifier for one in own):
            raise NoCommandError(f"pip: pyproject.toml wants another {wanted.name} than {word}")


def _pytest(arguments: list[str], complete: bool) -> None:
    markers = {line.partition(":")[0] for line in _project()["tool"]["pytest"]["ini_options"]["markers"]}
    for option, value in pairwise(arguments):
        if option == "-m" and (unknown := set(re.findall(r"\w+", value)) - {"not", "and", "or"} - markers):
            raise NoCommandError(f"pytest: there is no marker {', '.join(unknown)}")


def _ssh(arguments: list[str], complete: bool) -> list[str]:
    return ["ssh", *(program for inner in arguments[1:] for program in check_command(inner, complete))]


def _c_program(arguments: list[str], complete: bool) -> None:
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    if unknown := options - _c_options():
        raise NoCommandError(f"the C programs of a bundle have no {', '.join(unknown)}")


def _file(arguments: list[str], complete: bool) -> None:
    pass  # that the file is there was seen


_OF_A_BUNDLE = ("enet-run", "enet-rpcd", "start-rpc")
_PROGRAMS: dict[str, Callable[[list[str], bool], list[str] | None]] = {
    "enet-tvm": _enet_tvm,
    "python": _python,
    "torchrun": _torchrun,
    "make": _make,
    "pip": _pip,
    "pytest": _pytest,
    "ssh": _ssh,
    **dict.fromkeys(_OF_A_BUNDLE, _c_program),
    "run": _file,  # .ci/run
    "pre-commit": _file,
    Path(sys.executable).name: _python,
}
