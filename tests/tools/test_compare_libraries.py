"""`tools/compare-libraries`, in a repository of its own that holds the source as it is."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOG = "tuning_logs/x86-64-v3/enet-480x320-2threads"
OF_LOG, REFUSED = "enet-480x320 float32 x86-64-v3 2threads", "enet-104x72 bfloat16 rpi4"
SENTENCE = "so it would not be faster"

COMPILED = {
    "status": "compiled",
    "library": "a" * 64,
    "manifest": {
        "command": "enet-tvm compile",
        "hashes": {"weights": "b" * 64, "library": "a" * 64},
        "kernels": [{"name": "conv2d", "scale": 0.5}],
        "tuning": {"log": LOG.removeprefix("tuning_logs/"), "kernels": 2, "of": 3},
    },
}
NO = {"status": "refused", "sentence": "it would not be faster"}
LACKS = {"status": "refused", "sentence": "there is no compiler; run: pip install it"}
CRASH = {"status": "crashed", "sentence": "exit code -11: said nothing"}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """The script as a module."""
    loader = importlib.machinery.SourceFileLoader("compare_libraries", str(ROOT / "tools" / "compare-libraries"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def make_quick(pipeline: Path) -> None:
    """Leave LLVM's optimisations out of a copy of the source: cases take a fifth less, and what is compared is the script."""
    text, call = pipeline.read_text(), "tvm.compile(mod, target,"
    assert text.count(call) == 1
    pipeline.write_text(text.replace(call, 'tvm.compile(mod, tvm.target.Target({**target.export(), "opt-level": 0}),'))


def git(repository: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return subprocess.run(["git", *who, *arguments], cwd=repository, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source, committed, with one tuning log; what it compiles is not optimised."""
    directory = tmp_path_factory.mktemp("repository")
    for name in ("enet_tvm", "model", "targets", LOG):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    make_quick(directory / "enet_tvm" / "compiler" / "pipeline.py")
    (directory / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "compare-libraries", directory / "tools")
    (directory / ".gitignore").write_text("__pycache__/\n/build/\n")
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "the source")
    return directory


def start(repository: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(repository / "tools" / "compare-libraries"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(repository: Path, *arguments: str) -> tuple[int, list[str], str]:
    process = start(repository, *arguments)
    out, err = process.communicate()
    return process.returncode, out.splitlines(), err


def check_nothing_is_left(repository: Path) -> None:
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert git(repository, "status", "--porcelain") == ""


@pytest.fixture(scope="module")
def unchanged(repository: Path) -> tuple[int, list[str], str]:
    """What it says of a commit and a working tree that is the same; the commit's results are in the cache then."""
    return run(repository, "--only", OF_LOG, "--only", REFUSED, "--jobs", "2")


@pytest.mark.slow
def test_the_same_source_is_equal(repository: Path, unchanged: tuple[int, list[str], str]):
    code, lines, err = unchanged
    assert code == 0, err
    rows = {line[: len(OF_LOG)].strip(): line[len(OF_LOG) :].split(maxsplit=1) for line in lines[1:-1]}
    assert rows.keys() == {OF_LOG, REFUSED}
    assert rows[OF_LOG][0] == "equal"
    records = len(json.loads((repository / LOG / "log.json").read_text())["kernels"])
    assert rows[OF_LOG][1].endswith(f"log: {records} of {records} records match")
    assert rows[REFUSED] == ["refused", rows[REFUSED][1]]
    assert SENTENCE in rows[REFUSED][1]
    assert lines[-1].startswith("2 cases: 1 equal, 1 refused by both, 0 differ;")
    check_nothing_is_left(repository)


@pytest.mark.slow
def test_a_changed_working_tree_differs(repository: Path, unchanged: tuple[int, list[str], str]):
    """By one record less in a log, whose kernel is then another, and by another word in a refusal."""
    log = repository / LOG / "log.json"
    content = json.loads(log.read_text())
    records = len(content["kernels"])
    places = [n for n, choice in enumerate(content["kernels"]) if choice["point"] != choice["default"]]
    del content["kernels"][places[0]]
    log.write_text(json.dumps(content))
    for path in (repository / "enet_tvm").rglob("*.py"):
        if SENTENCE in (text := path.read_text()):
            path.write_text(text.replace(SENTENCE, "which is no use"))
    try:
        code, lines, err = run(repository, "HEAD", "--only", OF_LOG, "--only", REFUSED)
    finally:
        git(repository, "checkout", "--quiet", ".")
    assert code == 1, err
    assert "HEAD: 2 of 2 cases are known from an earlier run" in err
    rows = {line[: len(OF_LOG)].strip(): line[len(OF_LOG) :].split(maxsplit=1) for line in lines[1:-1]}
    assert [word for word, _ in rows.values()] == ["differs", "differs"]
    assert rows[OF_LOG][1].startswith("library, ")
    assert rows[OF_LOG][1].endswith(
        f"log: {records} of {records} records match, then {records - 1} of {records - 1} records match"
    )
    assert SENTENCE in rows[REFUSED][1]
    assert "which is no use" in rows[REFUSED][1]
    assert lines[-1].startswith("2 cases: 0 equal, 0 refused by both, 2 differ;")


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(repository: Path, number: int):
    process = start(repository, "--only", REFUSED)
    while len(git(repository, "worktree", "list").splitlines()) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.5)  # Then something compiles, or is about to.
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    check_nothing_is_left(repository)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-revision"], "there is no revision no-such-revision"),
        (["--only", "vax"], "no case has such a name"),
        (["--jobs", "0"], "at least 1"),
    ],
)
def test_bad_input(repository: Path, arguments: list[str], sentence: str):
    code, lines, err = run(repository, *arguments)
    assert code
    assert lines == []
    assert sentence in err
    assert "Traceback" not in err
    check_nothing_is_left(repository)


def test_cases(tool: ModuleType):
    """Each combination, and each log once, which then stands for the combination that it is of."""
    cases = tool.find_cases([ROOT, ROOT])
    assert len({case.name for case in cases}) == len(cases)
    assert {case.like for case in cases} >= {
        (*network, dtype, target, 1) for network in tool.SIZES for dtype in tool.DTYPES for target in tool.TARGETS
    }
    logs = {path.parent.relative_to(ROOT / "tuning_logs").as_posix() for path in ROOT.glob("tuning_logs/*/*/log.json")}
    assert sorted(logs) == sorted(case.log for case in cases if case.log)
    assert all(tool.count_records(ROOT, case) for case in cases if case.log)


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    result = json.loads(json.dumps(COMPILED))
    change(result)
    return result


@pytest.mark.parametrize(
    ("other", "kind", "detail"),
    [
        (COMPILED, "equal", "a" * 16),
        (changed(lambda it: it["manifest"].update(command="another", weights="elsewhere")), "equal", "a" * 16),
        (changed(lambda it: it.update(library="c" * 64)), "differs", "library"),
        (changed(lambda it: it["manifest"]["kernels"][0].update(scale=0.25)), "differs", "kernels of the manifest"),
        (changed(lambda it: it["manifest"].pop("tuning")), "differs", "tuning of the manifest"),
        (changed(lambda it: it["manifest"]["hashes"].update(weights="d" * 64)), "differs", "hashes of the manifest"),
        (NO, "differs", "only base compiles it; the other says: it would not be faster"),
        (CRASH, "differs", "only other crashes: exit code -11: said nothing"),
    ],
)
def test_what_differs_from_a_library(tool: ModuleType, other: dict[str, Any], kind: str, detail: str):
    assert tool.compare(COMPILED, other) == (kind, detail)


def test_what_differs_from_a_refusal(tool: ModuleType):
    assert tool.compare(NO, NO) == ("refused", NO["sentence"])
    assert tool.compare(LACKS, LACKS) == ("skipped", LACKS["sentence"])
    assert tool.compare(NO, LACKS)[0] == tool.compare(NO, COMPILED)[0] == tool.compare(CRASH, CRASH)[0] == "differs"


def test_a_log_that_no_longer_matches(tool: ModuleType):
    """It is a difference even where it is so on both sides: then it is of no use."""
    case = next(case for case in tool.find_cases([ROOT]) if case.name == OF_LOG)
    records = tool.count_records(ROOT, case)
    fewer = changed(lambda it: it["manifest"]["tuning"].update(kernels=1))
    none = changed(lambda it: it["manifest"].update(tuning=None))
    judge = tool.judge_log
    assert judge(case, [COMPILED, COMPILED], [ROOT, ROOT]) == (True, f"2 of {records} records match")
    assert judge(case, [COMPILED, fewer], [ROOT, ROOT]) == (
        False,
        f"2 of {records} records match, then 1 of {records} records match",
    )
    assert not judge(case, [none, none], [ROOT, ROOT])[0]
