from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enet_tvm.artifact import check_artifact, read_manifest
from enet_tvm.compatibility import Machine, Mismatch, Requirements, features_for, find_mismatch
from enet_tvm.compiler.target_check import check_target
from enet_tvm.device_bundle import BundleRequest, write_bundle
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, cpu_features
from enet_tvm.rpc.engine import RemoteEngine
from enet_tvm.rpc.session_process import device_facts
from enet_tvm.targets import TargetSpec, load_target
from enet_tvm.tuning.where import check_runs_here
from enet_tvm.version import TESTED_STACK

BOARD = Machine("aarch64", frozenset({"asimd", "fp"}), {"apache-tvm": "1", "apache-tvm-ffi": "2"}, lambda: "it has no GPU")
TX1 = Machine("aarch64", gpu_arch=lambda: "sm_53")


@pytest.mark.parametrize(
    ("requirements", "mismatch"),
    [
        (Requirements("aarch64"), None),
        (Requirements("aarch64", ("fp", "asimd"), versions={"apache-tvm": "1"}), None),
        (Requirements("x86_64"), Mismatch("architecture", "x86_64", "aarch64")),
        (Requirements("aarch64", ("sve", "fp", "bf16")), Mismatch("cpu_features", "bf16, sve")),
        (Requirements("aarch64", versions={"apache-tvm-ffi": "3"}), Mismatch("versions", "apache-tvm-ffi 3", "2")),
        (Requirements("aarch64", device="cuda"), Mismatch("device", "cuda", "it has no GPU")),
        (Requirements("x86_64", ("avx",), "cuda", {"apache-tvm": "9"}), Mismatch("versions", "apache-tvm 9", "1")),
    ],
)
def test_what_does_not_fit(requirements: Requirements, mismatch: Mismatch | None) -> None:
    assert find_mismatch(requirements, BOARD) == mismatch


@pytest.mark.parametrize(
    ("architecture", "listed", "dtype", "needed"),
    [
        ("aarch64", ("fp", "asimd"), "float32", ("fp", "asimd")),
        ("aarch64", (), "float16", ("asimdhp",)),
        ("aarch64", ("asimdhp", "fphp"), "float16", ("asimdhp", "fphp")),
        ("aarch64", ("asimd",), "int8", ("asimd", "asimddp")),
        ("x86_64", ("avx2",), "float16", ("avx2", "avx512_fp16")),
        ("x86_64", ("avx512_bf16",), "bfloat16", ("avx512_bf16",)),
    ],
)
def test_what_a_data_type_needs(architecture: str, listed: tuple[str, ...], dtype: str, needed: tuple[str, ...]) -> None:
    assert features_for(architecture, listed, dtype) == needed


@pytest.mark.parametrize(
    ("needed", "found", "fits"),
    [
        ("sm_53", "sm_53", True),
        ("sm_53", "sm_90", True),  # whose driver translates the PTX
        ("sm_90", "sm_53", False),
        ("sm_86", "sm_87", True),
        ("sm_90", "sm_100", True),
        ("sm_120", "sm_90", False),
        ("sm_90", None, True),  # not known
        (None, "sm_53", True),  # an artifact that does not say
        ("sm_x", "sm_53", True),
    ],
)
def test_a_gpu_runs_the_code_of_earlier_ones(needed: str | None, found: str | None, fits: bool) -> None:
    machine = Machine("aarch64", gpu_arch=lambda: found)
    mismatch = find_mismatch(Requirements("aarch64", device="cuda", gpu_arch=needed), machine)
    assert mismatch == (None if fits else Mismatch("gpu_arch", str(needed), str(found)))


def test_code_for_a_processor_asks_no_gpu() -> None:
    assert find_mismatch(Requirements("aarch64", gpu_arch="sm_90"), TX1) is None


def for_a_gpu(artifact: Path, arch: str) -> None:
    """Make an artifact one that says that it has device code of an architecture."""
    path = artifact / "manifest.json"
    content = json.loads(path.read_text())
    content["target"] |= {"device": "cuda", "name": "h100"}
    kernel = {"name": "k", "registers": 32, "spill_bytes": 0, "stack_bytes": 0, "shared_bytes": 0}
    device = {"arch": arch, "ptx": "7.8", "kernels": [kernel]}
    content["library_report"] = {"machine": architecture(), "size": 1, "exported_kernels": 1, "device": device}
    path.write_text(json.dumps(content))


def test_an_artifact_for_a_later_gpu_is_refused_before_it_is_loaded(spoilt_artifact: Path) -> None:
    for_a_gpu(spoilt_artifact, "sm_90")
    assert check_artifact(spoilt_artifact, lambda: "sm_90").requirements.gpu_arch == "sm_90"
    assert check_artifact(spoilt_artifact).target.name == "h100"
    words = r"was compiled for h100 \(sm_90\), and this machine's GPU is sm_53, which is older; .* is sm_53 or less$"
    with pytest.raises(UserError, match=words):
        check_artifact(spoilt_artifact, lambda: "sm_53")


def test_a_bundle_takes_no_artifact_for_a_later_gpu(spoilt_artifact: Path, tmp_path: Path) -> None:
    for_a_gpu(spoilt_artifact, "sm_90")
    target = load_target("gtx-1080").model_copy(update={"triple": f"{architecture()}-linux-gnu"})
    with pytest.raises(UserError, match=r"was compiled for sm_90, and gtx-1080's GPU is sm_61, which is older; compile it"):
        write_bundle(BundleRequest(target, artifact=spoilt_artifact), tmp_path / "a.tgz")


class GpuSession(contextlib.AbstractContextManager[None]):
    """Of a device with a GPU of compute capability 5.3, and a server that opens it when it starts."""

    name = "board"

    def __init__(self) -> None:
        device = SimpleNamespace(compute_version="5.3")
        self.remote = SimpleNamespace(device=lambda kind, number: device)

    def facts(self) -> dict[str, Any]:
        return device_facts()

    def find(self, name: str) -> None:
        return None

    def within(self, seconds: float, doing: str) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def upload(self, library: Path) -> str:
        return library.name

    def load_module(self, name: str) -> Any:
        raise ReachedError


def test_a_device_gets_no_library_for_a_later_gpu(spoilt_artifact: Path) -> None:
    session: Any = GpuSession()
    for_a_gpu(spoilt_artifact, "sm_53")
    with pytest.raises(ReachedError):
        RemoteEngine(session, spoilt_artifact, read_manifest(spoilt_artifact))
    for_a_gpu(spoilt_artifact, "sm_90")
    with pytest.raises(UserError, match=r"compiled for h100 \(sm_90\), and the GPU of board is sm_53; compile it for"):
        RemoteEngine(session, spoilt_artifact, read_manifest(spoilt_artifact))


def test_the_gpu_is_looked_for_where_one_is_needed_and_all_else_fits() -> None:
    def look() -> str | None:
        raise AssertionError("it was looked for")

    machine = Machine("aarch64", missing_gpu=look)
    assert find_mismatch(Requirements("aarch64"), machine) is None
    assert find_mismatch(Requirements("x86_64", device="cuda"), machine) is not None
    with pytest.raises(AssertionError, match="it was looked for"):
        find_mismatch(Requirements("aarch64", device="cuda"), machine)


NAMES = st.sampled_from(["asimd", "sse2", "avx2", "fp"])


@given(needs=st.frozensets(NAMES), has=st.frozensets(NAMES), known=st.booleans())
def test_features_fit_where_all_of_them_are_there(needs: frozenset[str], has: frozenset[str], known: bool) -> None:
    fits = find_mismatch(Requirements("x86_64", needs), Machine("x86_64", has if known else None)) is None
    assert fits == (needs <= has or not known)


@pytest.mark.parametrize(
    ("facts", "features"),
    [
        ({}, None),
        ({"architecture": "aarch64"}, None),
        ({"architecture": "aarch64", "cpu_features": ["asimd", "fp"]}, frozenset({"asimd", "fp"})),
        ({"architecture": "aarch64", "cpu_features": ["sse2", "avx"]}, None),  # an emulated board
        ({"architecture": "x86_64", "cpu_features": ["sse2", "avx"]}, frozenset({"sse2", "avx"})),
    ],
)
def test_what_a_device_says_of_itself(facts: dict[str, Any], features: frozenset[str] | None) -> None:
    assert Machine.of_facts(facts).cpu_features == features


# One verdict wherever it is asked


def refuses(call: Callable[[], Any]) -> bool:
    try:
        call()
    except UserError:
        return True
    return False


class Session:
    """Of a device that says it is this machine, and refuses what comes after that."""

    name = "board"

    def facts(self) -> dict[str, Any]:
        return device_facts()

    def upload(self, library: Path) -> str:
        raise ReachedError

    def load_module(self, name: str) -> Any:
        raise AssertionError


class ReachedError(Exception):
    """The library would now be sent to the device."""


def sends(artifact: Path) -> None:
    session: Any = Session()
    with pytest.raises(ReachedError):
        RemoteEngine(session, artifact, read_manifest(artifact))


def this_machine(name: str) -> TargetSpec:
    native = load_target("native")
    return native.model_copy(update={"name": name, "cpu_features": tuple(sorted(cpu_features()))})


OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[architecture()]


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"cpu_features": [min(cpu_features())]}, True),
        ({"cpu_features": [min(cpu_features()), "avx1024"]}, False),
        ({"architecture": OTHER}, False),
        ({"versions": "0.26.0"}, False),
    ],
)
def test_every_caller_says_the_same(spoilt_artifact: Path, tmp_path: Path, change: dict[str, Any], fits: bool) -> None:
    path = spoilt_artifact / "manifest.json"
    content = json.loads(path.read_text())
    content["versions"]["apache_tvm"] = change.get("versions", TESTED_STACK["apache-tvm"])
    content["target"].update({key: value for key, value in change.items() if key != "versions"})
    path.write_text(json.dumps(content))
    target = read_manifest(spoilt_artifact).target
    verdicts = {
        "loading": not refuses(lambda: check_artifact(spoilt_artifact)),
        "sending": not refuses(lambda: sends(spoilt_artifact)),
        "packing": not refuses(
            lambda: write_bundle(BundleRequest(this_machine("here"), artifact=spoilt_artifact), tmp_path / "a.tgz")
        ),
    }
    if "versions" not in change:
        verdicts["tuning"] = not refuses(lambda: check_runs_here(target.architecture, target.cpu_features, "it"))
        spec = tmp_path / "spec.toml"
        features = json.dumps(list(target.cpu_features))
        spec.write_text(
            f'description = "it"\ntriple = "{target.architecture}-linux-gnu"\nmcpu = "generic"\ncpu_features = {features}\n'
        )
        verdicts["listing"] = not check_target(str(spec)).obstacles
    assert verdicts == dict.fromkeys(verdicts, fits)
