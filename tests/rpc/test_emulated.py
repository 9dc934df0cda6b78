"""An aarch64 board, emulated: a compiled network to proven figures over RPC, crashes, timeouts, and a tuner's trials."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from compiled import shipped_enet

from enet_tvm.agreement import NOISE, PICTURES
from enet_tvm.artifact import Manifest
from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.rpc.session import open_session

pytestmark = [pytest.mark.emulated, pytest.mark.slow, pytest.mark.timeout(300)]

KEY = "rpi4"


@pytest.fixture(scope="module")
def emulated(shared_farm: Any, emulated_device: Any) -> tuple[Address, Any]:
    """A tracker, and the emulated board with the key of the Raspberry Pi 4."""
    _, tracker = shared_farm.start_tracker()
    server = shared_farm.start_server(
        tracker, key=KEY, python=emulated_device.python(), environment=emulated_device.python_environment
    )
    return tracker, server


@pytest.fixture(scope="module")
def enet() -> Path:
    """The shipped ENet, compiled for a Raspberry Pi 4 at a small size."""
    return shipped_enet("rpi4")


@pytest.fixture(scope="module")
def newer_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For aarch64: a function that needs the dot product instructions of ARMv8.2, one that spins, one that returns 7."""
    from enet_tvm.compiler.linking import zig_linker

    folder = tmp_path_factory.mktemp("newer")
    source = folder / "newer.c"
    arguments = "(void *self, const void *arguments, int count, struct any *result)"
    source.write_text(
        "struct any { int type; int padding; long long value; };\n"
        f'int __tvm_ffi_newer{arguments} {{ __asm__ volatile(".inst 0x6e829420"); return 0; }}\n'  # udot v0.4s, v1.16b, v2.16b
        f'int __tvm_ffi_spin{arguments} {{ for (;;) __asm__ volatile(""); }}\n'
        f"int __tvm_ffi_seven{arguments} {{ result->type = 1; result->value = 7; return 0; }}\n",
        encoding="utf-8",
    )
    zig_linker("aarch64")(folder / "newer.so", [str(source)])
    return folder / "newer.so"


def counts(tracker: Address, library: Path) -> bool:
    with open_session(tracker, KEY, wait=20) as session:
        module = session.load_module(session.upload(library))
        with session.within(10, "counting"):
            return int(module["seven"]()) == 7


def test_the_board_tells_what_it_is(emulated: Any) -> None:
    with open_session(emulated[0], KEY) as session:
        facts = session.facts()
        assert facts["architecture"] == "aarch64"
        assert session.set_threads(10_000) == facts["cpus"]


def test_network_says_what_pytorch_says(emulated: Any, enet: Path) -> None:
    from enet_tvm.evaluation.inputs import open_inputs
    from enet_tvm.evaluation.parity import load_reference, verify

    with DeviceSegmenter.open(enet, emulated[0], KEY, threads=2) as segmenter:
        assert segmenter.threads == min(2, segmenter.engine.facts["cpus"])
        inputs = open_inputs(segmenter, synthetic=2)
        report = verify(segmenter, load_reference(segmenter), inputs, inputs.class_set)
        last = segmenter.engine.last
    assert report.passes(PICTURES["float32"])
    assert report.max_abs_logit_diff < 1e-3
    assert last is not None
    assert min(last.device, last.upload, last.download) > 0


def test_bench(emulated: Any, enet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from enet_tvm.cli.main import main

    line = ["bench", "--target", "rpi4", "--tracker", str(emulated[0]), "--artifact", str(enet), "--seconds", "1"]
    with pytest.raises(SystemExit) as ended:
        main([*line, "--json", str(tmp_path / "bench.json")])
    assert ended.value.code == 0
    (result,) = json.loads((tmp_path / "bench.json").read_text())
    (entry,) = result["entries"]
    assert entry["name"] == "tvm-rpc"
    assert entry["label_agreement"] >= NOISE["float32"]
    assert entry["latency"]["median_ms"] > 0
    assert "tvm-rpc" in capsys.readouterr().out


def test_verify(emulated: Any, enet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from enet_tvm.cli.main import main

    line = ["verify", str(enet), "--tracker", str(emulated[0]), "--synthetic", "1", "--json", str(tmp_path / "verify.json")]
    with pytest.raises(SystemExit) as ended:
        main(line)
    assert ended.value.code == 0, capsys.readouterr()
    assert json.loads((tmp_path / "verify.json").read_text())["label_agreement"] >= PICTURES["float32"]


def test_code_for_a_newer_processor(emulated: Any, newer_library: Path) -> None:
    tracker, _ = emulated
    with open_session(tracker, KEY) as session:
        module = session.load_module(session.upload(newer_library))
        with (
            pytest.raises(UserError, match=r"crashed .* SIGILL, .* newer processor"),
            session.within(20, "running the network"),
        ):
            module["newer"]()
    assert counts(tracker, newer_library)


def test_code_for_another_architecture(emulated: Any, tiny_artifact: Any, enet: Path) -> None:
    with pytest.raises(UserError, match=r"compiled for here \(x86_64\), and rpi4 at .* is aarch64; compile it"):
        DeviceSegmenter.open(tiny_artifact.directory, emulated[0], KEY)
    with open_session(emulated[0], KEY) as session, pytest.raises(UserError, match=r"failed in loading enet\.so"):
        session.load_module(session.upload(tiny_artifact.directory / "enet.so"))


def test_artifact_of_another_tvm(emulated: Any, enet: Path, tmp_path: Path) -> None:
    copy = tmp_path / "artifact"
    copy.mkdir()
    manifest = Manifest.model_validate_json((enet / "manifest.json").read_text())
    versions = manifest.versions.model_copy(update={"apache_tvm": "0.25.0"})
    (copy / "manifest.json").write_text(manifest.model_copy(update={"versions": versions}).model_dump_json())
    (copy / "enet.so").write_bytes((enet / "enet.so").read_bytes())
    with pytest.raises(UserError, match=r"compiled with apache-tvm 0\.25\.0, and rpi4 at .* has 0\.27"):
        DeviceSegmenter.open(copy, emulated[0], KEY)


def test_session_that_is_over(emulated: Any, newer_library: Path) -> None:
    tracker, server = emulated
    with open_session(tracker, KEY, session_seconds=4) as session:
        process = server.session()
        module = session.load_module(session.upload(newer_library))
        with pytest.raises(UserError, match="session of 4 s"), session.within(30, "running the network"):
            module["spin"]()
    assert counts(tracker, newer_library)
    assert not psutil.pid_exists(process.pid)


def test_death_in_the_run(
    farm: Any, emulated_device: Any, newer_library: Path, later: Callable[[float, int, int], None]
) -> None:
    _, tracker = farm.start_tracker()
    python, environment = emulated_device.python(), emulated_device.python_environment
    server = farm.start_server(tracker, key=KEY, python=python, environment=environment)
    with open_session(tracker, KEY) as session:
        process = server.session()
        module = session.load_module(session.upload(newer_library))
        later(1, signal.SIGKILL, server.pid)
        with pytest.raises(UserError, match="was lost while running"), session.within(30, "running the network"):
            module["spin"]()
    server.process.wait()
    _, alive = psutil.wait_procs([process], timeout=5)
    assert not alive, "the session's process ends with the server, also under the emulator"


def test_tuning_trials_are_all_measured(emulated: Any, tmp_path: Path) -> None:
    """Sixteen trials of MetaSchedule, linked here and run there."""
    from tvm import te

    from enet_tvm.targets import load_target
    from enet_tvm.tuning.generic import GenericSearch
    from enet_tvm.tuning.measure import Fleet, Measurer, Timing
    from enet_tvm.tuning.records import Records
    from enet_tvm.tuning.tasks import GenericTask

    for name in ("cloudpickle", "xgboost"):
        pytest.importorskip(name)
    a = te.placeholder((16, 64), "float32", name="a")
    b = te.placeholder((64, 32), "float32", name="b")
    k = te.reduce_axis((0, 64), name="k")
    product = te.compute((16, 32), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="product")
    function = te.create_prim_func([a, b, product])
    spec = load_target("rpi4")
    target = spec.to_tvm()
    records = Records(tmp_path / "database", target, ())
    search = GenericSearch(GenericTask.of("product", (0,), function, 4), target, records, trials=16)
    fleet = Fleet(emulated[0], KEY)
    timing = Timing(repeats=2, milliseconds=1, timeout=60)
    measurer = Measurer(target, spec.triple, spec.toolchain, 2, tmp_path / "libraries", fleet, timing, build_timeout=200)
    measured: list[Any] = []
    try:
        while len(measured) < 16 and (candidates := search.next_round()):
            libraries = measurer.build([candidate.sch.mod for candidate in candidates])
            assert all(isinstance(library, Path) for library in libraries), libraries
            outcomes = measurer.run(libraries, [candidate.args_info for candidate in candidates])
            search.tell(candidates, [outcome.seconds for outcome in outcomes])
            measured += outcomes
    finally:
        measurer.close()
    assert [outcome.reason for outcome in measured] == [""] * 16
    seconds = [float(s) for record in records.database.get_all_tuning_records() for s in record.run_secs]
    assert len(seconds) >= 16
    assert np.max(seconds) < 60, "a trial that fails is written down as 1e10 seconds"
