"""What CONTRIBUTING says of the tests themselves, and the plugin that holds them to it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from effort import effort, shared_work
from shared import made_once, run_folder

ROOT = Path(__file__).parents[1]
TESTS, PACKAGE = ROOT / "tests", ROOT / "enet_tvm"

ELSEWHERE = {
    "__main__": "test_bad_input",
    "bench/report/results": "bench/test_comparison",
    "bench/runners/executorch": "bench/runners/test_portable_form",
    "bench/runners/litert": "bench/runners/test_portable_form",
    "bench/runners/mnn": "bench/runners/test_portable_form",
    "bench/runners/ncnn": "bench/runners/test_portable_form",
    "bench/runners/tvm_rpc": "rpc/test_bench",
    "cli/bench_segnet": "bench/test_baseline",
    "cli/device_bundle": "device_bundle/test_bundle",
    "cli/evaluate": "cli/test_train",
    "cli/fit_bias": "cli/test_train",
    "cli/main": "test_bad_input",
    "cli/profile": "bench/measure/test_profile",
    "compiler/arm/instructions": "test_arm_counts",
    "compiler/arm/tools": "test_arm_counts",
    "compiler/debian_packages": "compiler/kernels/gpu/test_oclgrind",
    "compiler/frontend/layer_names": "compiler/frontend/test_torch_import",
    "compiler/kernels/common/building": "compiler/kernels/cpu/test_conv2d",
    "compiler/kernels/common/choices": "compiler/test_tuning_log",
    "compiler/kernels/common/convolution": "compiler/kernels/common/test_template",
    "compiler/kernels/common/elements": "test_downsamplers",
    "compiler/kernels/common/launch": "compiler/passes/test_lower_kernels",
    "compiler/kernels/common/llvm_functions": "test_downsamplers",
    "compiler/kernels/common/pooling": "compiler/kernels/cpu/test_pooling",
    "compiler/kernels/common/taps": "compiler/kernels/cpu/test_conv2d",
    "compiler/kernels/cpu/packing": "test_downsamplers",
    "compiler/kernels/gpu/bottleneck_block": "compiler/kernels/gpu/test_bottleneck",
    "compiler/kernels/gpu/bottleneck_kernel": "compiler/kernels/gpu/test_bottleneck",
    "compiler/kernels/gpu/bottleneck_sums": "compiler/kernels/gpu/test_bottleneck",
    "compiler/kernels/gpu/building": "compiler/kernels/gpu/test_conv2d",
    "compiler/kernels/gpu/templates": "compiler/passes/test_lower_kernels",
    "compiler/kernels/gpu/transposed": "compiler/kernels/gpu/test_conv2d",
    "compiler/ops/initial_block": "compiler/passes/test_fuse_initial_block",
    "compiler/ops/registry": "compiler/ops/test_conv2d",
    "compiler/ops/spec": "compiler/kernels/cpu/test_templates",
    "compiler/passes/end_in_argmax": "test_numerics",
    "compiler/quantisation/calibrate": "cli/test_calibrate",
    "compiler/quantisation/calibration": "cli/test_calibrate",
    "compiler/traces": "tuning/test_generic",
    "compiler/tuning_keys": "compiler/test_tuning_log",
    "data/annotations/shapes": "data/annotations/test_labelme",
    "data/discovery": "data/test_describing",
    "device_bundle/archive": "device_bundle/test_bundle",
    "device_bundle/building": "device_bundle/test_bundle",
    "errors": "test_bad_input",
    "evaluation/predictors": "evaluation/test_evaluate",
    "live/command": "cli/test_live",
    "live/hub": "live/test_app",
    "live/libraries": "cli/test_live",
    "live/session": "live/test_app",
    "networks/base": "networks/test_table",
    "networks/checkpoint_file": "networks/test_importing",
    "networks/concatenated": "networks/test_folded",
    "networks/recognise": "networks/test_importing",
    "networks/tensors": "networks/test_weights",
    "normalisation": "runtime/test_pictures",
    "rpc/devices": "rpc/test_tracker",
    "rpc/relay": "rpc/test_faults",
    "rpc/relay_process": "rpc/test_faults",
    "rpc/server": "rpc/test_device_servers",
    "rpc/session": "rpc/test_faults",
    "rpc/session_process": "rpc/test_device_servers",
    "runtime/__main__": "runtime/test_segmenter",
    "runtime/batch": "runtime/test_pictures",
    "runtime/engine": "runtime/test_segmenter",
    "runtime/instrument": "rpc/test_engine",
    "runtime/libraries": "runtime/test_gpu",
    "runtime/protocol": "rpc/test_engine",
    "targets/spec": "targets/test_loading",
    "training/progress": "cli/test_train",
    "training/slope_plot": "cli/test_plot",
    "tuning/baseline": "tuning/test_session",
    "tuning/without_torch/torch": "tuning/test_metaschedule",
    "tuning/prediction": "tuning/test_modelled",
    "tuning/report": "tuning/test_session",
    "tuning/tasks": "tuning/test_cost_model",
    "tuning/trials": "tuning/test_session",
    "version": "compiler/test_compile",
}
"""Modules that have no test file of their own, and the one that would fail without them; a new module gets its own."""


def modules() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__init__.py":
            yield path.relative_to(PACKAGE).with_suffix("").as_posix()


def test_every_module_has_its_test_file():
    expected = {name: ELSEWHERE.get(name, re.sub(r"([^/]+)$", r"test_\1", name)) for name in modules()}
    missing = {name: f"{place}.py" for name, place in expected.items() if not (TESTS / f"{place}.py").is_file()}
    assert not missing, "tests mirror enet_tvm: each of these modules wants a file in tests/"
    stale = {name for name in ELSEWHERE if name not in expected or (TESTS / re.sub(r"([^/]+)$", r"test_\1.py", name)).is_file()}
    assert not stale, "these modules are gone, or have a file of their own now: take them out of ELSEWHERE"


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names() -> set[str]:
    """Names with an underscore that this project defines."""
    names: set[str] = set()
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
    return {name for name in names if private(name)}


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The names of other objects that a test reads, sets or replaces, by their lines."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, each.name) for each in names)
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr") | ast.Name(id="setattr" | "getattr"), args=arguments):
                texts = [each.value for each in arguments if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                yield from ((node.lineno, text.rpartition(".")[2]) for text in texts)
            case ast.Call(func=ast.Name(id="exec" | "eval" as name)):
                yield node.lineno, f"{name}()"


@pytest.mark.slow
def test_tests_call_public_names():
    """What is private may change without a word; and code in a string escapes every tool."""
    forbidden = private_names() | {"exec()", "eval()"}
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, name in uses(ast.parse(path.read_text()))
        if name in forbidden
    ]
    assert not found


def run(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests under the plugin, in a run of its own."""
    (folder / "test_file.py").write_text(f"import os, sys, time\nimport pytest\n{test}")
    (folder / "conftest.py").write_text(
        "import suite\nsuite.LIMIT = 0.3\ndef pytest_configure(config):\n    config.pluginmanager.register(suite.Suite())\n"
    )
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: slow\n    alone: alone\n    quick_cases(count): some\n")
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ENET_TVM_TEST_RUN"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options],
        cwd=folder,
        env={**variables, "PYTHONPATH": str(TESTS / "support")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_slow_test_must_say_so(tmp_path: Path):
    result = run(
        tmp_path,
        """
def work():
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass

def test_quick(): pass
def test_waiting(): time.sleep(0.5)
def test_working(): work()

@pytest.mark.slow
def test_marked(): work()

@pytest.fixture(scope="module")
def shared(): work()

def test_of_what_all_need(shared): pass

@pytest.fixture
def own(): work()

def test_of_what_it_needs_itself(own): pass
""",
        *("-m", "slow or not slow"),
    )
    failed = re.findall(r"^FAILED test_file.py::(\w+)", result.stdout, re.MULTILINE)
    assert failed == ["test_working", "test_of_what_it_needs_itself"], result.stdout
    assert "make it faster, or mark it with pytest.mark.slow" in result.stdout


@pytest.mark.slow
def test_a_few_of_many_cases_are_quick(tmp_path: Path):
    """They lie apart, whichever of the others are slow anyway, and all of them run where nothing is chosen."""
    content = """
@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("case", [*"abcd", pytest.param("e", marks=pytest.mark.slow)])
def test_many(case): print(f"<{case}>")

@pytest.mark.parametrize("case", "xy")
def test_all(case): print(f"<{case}>")
"""
    assert re.findall("<(.)>", run(tmp_path, content, "-s", "-m", "not slow").stdout) == ["a", "c", "x", "y"]
    assert re.findall("<(.)>", run(tmp_path, content, "-s").stdout) == [*"abcdexy"]


@pytest.mark.slow
def test_one_alone_waits_for_the_others(tmp_path: Path):
    body = "\n    ".join(["with open('times', 'a') as file:", "    begun = time.monotonic()", "    time.sleep(0.05)"])
    write = "        file.write(f'{alone} {begun} {time.monotonic()}\\n')"
    result = run(
        tmp_path,
        f"""
def note(alone):
    {body}
{write}

@pytest.mark.parametrize("number", range(20))
def test_shared(number): note(0)

@pytest.mark.alone
@pytest.mark.parametrize("number", range(4))
def test_alone(number): note(1)
""",
        *("-n", "2"),
    )
    assert result.returncode == 0, result.stdout
    times = [tuple(map(float, line.split())) for line in (tmp_path / "times").read_text().splitlines()]
    assert len(times) == 24
    for alone, begun, ended in times:
        meanwhile = [each for each in times if each[1] < ended and each[2] > begun]
        assert len(meanwhile) == 1 or not (alone or any(each[0] for each in meanwhile))


@pytest.mark.slow
def test_one_of_two_workers_reads_files_from_the_last_on(tmp_path: Path):
    """They still agree on the order of the tests, or none would be run."""
    note = (
        "import os\nwith open('read', 'a') as file:\n    file.write(f'{os.environ[\"PYTEST_XDIST_WORKER\"]} {__name__}\\n')\n"
    )
    (tmp_path / "folder").mkdir()
    for name in ("test_a", "folder/test_b", "folder/test_c", "test_z"):
        (tmp_path / f"{name}.py").write_text(f"{note}def test_passes(): pass\n")
    result = run(tmp_path, f"{note}def test_passes(): pass\n", "-n", "2")
    assert "5 passed" in result.stdout
    read = [line.split() for line in (tmp_path / "read").read_text().splitlines()]
    first, second = ([name for worker, name in read if worker == which] for which in ("gw0", "gw1"))
    assert first == ["test_b", "test_c", "test_a", "test_file", "test_z"]
    assert second == first[::-1]


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "workers"])
def test_a_process_that_crashes_at_its_end_fails_the_run(tmp_path: Path, options: tuple[str, ...]):
    result = run(tmp_path, "import atexit\natexit.register(os.abort)\ndef test_passes(): pass\n", *options)
    assert "1 passed" in result.stdout
    assert result.returncode != 0
    if options:
        assert "ended with code -6, after its last test" in result.stdout


def test_what_is_made_once(tmp_path: Path):
    made: list[Path] = []

    def make(place: Path) -> None:
        made.append(place)
        time.sleep(0.1)
        place.write_text("content")

    name = f"made-{tmp_path.parent.name}-{os.getpid()}"
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: made_once(name, make), range(4)))
    assert len(made) == 1
    assert set(places) == {run_folder() / name}
    assert places[0].read_text() == "content"


def test_shared_work_is_nobodys():
    before = effort()
    with shared_work(), shared_work():
        time.sleep(0.2)
    assert (effort() - before).passed < 0.15
