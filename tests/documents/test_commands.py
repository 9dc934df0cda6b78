"""Every command that the Markdown files show, and that the program itself tells people to run, can be run."""

from __future__ import annotations

import ast
import re

import pytest
from commands import NoCommandError, all_options, check_command, check_inline, is_command
from markdown_files import ROOT, Document, documents, repository_files

SHELL = ("sh", "bash", "shell", "console", "")
NOT_OURS = {"--cpus"}
"""Options of other programs, of which a text may speak."""


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_blocks_of_commands(document: Document):
    for code in document.code():
        if code.language is not None and code.language in SHELL:
            for line in code.text.replace("\\\n", " ").splitlines():
                check_command(line.removeprefix("$ "))


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_commands_in_sentences(document: Document):
    for code in document.code():
        if code.language is None and is_command(code.text):
            check_inline(code.text)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_options_in_sentences(document: Document):
    for code in document.code():
        if code.language is None and code.text.startswith("--"):
            assert code.text.split()[0].partition("=")[0] in all_options() | NOT_OURS, code.text


def test_what_they_hold():
    """The tests above look at what they are meant to look at."""
    seen = [(document.name, code) for document in documents() for code in document.code()]
    readme = [code for name, code in seen if name == "README.md"]
    lines = [line for code in readme if code.language == "sh" for line in code.text.splitlines()]
    shown = " ".join(program for line in lines for program in check_command(line))
    assert shown.count("enet-tvm") > 20
    assert "ssh cd start-rpc" in shown.replace("tar ", "")
    assert sum(is_command(code.text) for name, code in seen if code.language is None) > 20


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("enet-tvm fly", "has no 'fly'"),
        ("enet-tvm device fly", "has no 'fly'"),
        ("enet-tvm compile", "Missing option '--out'"),
        ("enet-tvm compile -o x --wings", "No such option: --wings"),
        ("enet-tvm compile -o x --dtype float8", "Invalid value for '--dtype'"),
        ("enet-tvm compile -o x --size 641x360", "divisible"),
        ("enet-tvm compile -o x --target rpi9", "rpi9"),
        ("enet-tvm compile -o x extra", "unexpected extra argument"),
        ("enet-tvm info --size 640x360 | enet-tvm run  # not fine", "Missing argument"),
        ("cd x && enet-tvm train --data d -o o --recipe newest", "no recipe newest"),
        ("ssh pi 'cd x && enet-tvm fly'", "has no 'fly'"),
        ("torchrun --nproc-per-node 2 -m enet_tvm fly", "has no 'fly'"),
        ("torchrun --wings -m enet_tvm train", "unrecognized|required|ambiguous"),
        ("python -m enet_tvm.demo --wings", "unrecognized arguments: --wings"),
        ("python -m enet_tvm.nothing", "no module enet_tvm.nothing"),
        ("python benchmarks/nothing.py", "no benchmarks/nothing.py"),
        ("python benchmarks/latency.py --wings", "No such option: --wings"),
        ("python -m enet_tvm.rpc.server", "required: --key"),
        ("make nothing", "No rule to make target"),
        ("make WINGS=2 demo", "uses no WINGS"),
        ("pip install 'enet-tvm[wings]'", "no extra wings"),
        ("pip install torch==2.0.0", "another torch"),
        ("pytest -m 'not wings'", "no marker wings"),
        ("bin/enet-run --wings A x.npy", "have no --wings"),
        ("fly away", "fly is no program"),
        (".ci/pre-commit", "there is no .ci/pre-commit"),
    ],
)
def test_what_is_no_command(line: str, why: str):
    with pytest.raises(NoCommandError, match=why):
        check_command(line)


def test_a_part_of_a_command():
    assert check_inline("enet-tvm device tracker|serve|list|bundle") == 4 * ["enet-tvm"]
    assert check_inline("compile --dump-ir DIR") == ["enet-tvm"]
    for wrong in ("enet-tvm device tracker|fly", "compile --wings", "compile --dtype int8|int9"):
        with pytest.raises(NoCommandError):
            check_inline(wrong)


SOURCES = sorted(name for name in repository_files() if name.startswith(("enet_tvm/", "benchmarks/")) and name.endswith(".py"))
QUOTED = re.compile(r"(?:'|`)(enet-tvm [a-z][^'`\n]*)(?:'|`)")


def texts(source: str) -> list[str]:
    """The texts of a program, with a number where it puts a value."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def test_what_the_program_tells_people_to_run():
    commands = {
        " ".join(command.split())
        for name in SOURCES
        for text in texts((ROOT / name).read_text(encoding="utf-8"))
        for command in QUOTED.findall(text)
    }
    assert len(commands) > 15
    wrong = {}
    for command in commands:
        try:
            check_inline(command)
        except NoCommandError as error:
            if "Invalid value" not in str(error):
                wrong[command] = str(error)
    assert wrong == {}
