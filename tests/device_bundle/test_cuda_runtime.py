"""The libcudart.so.13 over an old driver: read as the loader reads it, and run against a driver that records its calls."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from compiled import shipped_enet
from elftools.elf.elffile import ELFFile
from recording_driver import DRIVER, PRELUDE, RecordingDriver, build_driver, recorded_artifact

from enet_tvm.artifact import read_manifest
from enet_tvm.device_bundle import BundleRequest, write_bundle
from enet_tvm.device_bundle.building import CUDA_RUNTIME, SOURCES, build_cuda_runtime
from enet_tvm.device_bundle.bundle import CUDA_BACKEND
from enet_tvm.device_bundle.wheels import runtime_files
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.machine import architecture
from enet_tvm.targets import load_target

OLD_DRIVER = 10020
"""CUDA 10.2, in JetPack 4.6."""

ADDED = {"cuLaunchKernelEx", "cuTensorMapEncodeTiled"}
"""What TVM calls of the driver and CUDA 10.2's lacks."""

TVM_CALLS = {
    "cuDeviceGetName": 2000,
    "cuFuncSetAttribute": 9000,
    "cuGetErrorName": 6000,
    "cuGetErrorString": 6000,
    "cuModuleGetFunction": 2000,
    "cuModuleLoadData": 2000,
    "cuModuleUnload": 2000,
}
"""What TVM calls of the driver itself beside those two, and the version of CUDA that it came with."""


@dataclass(frozen=True)
class Library:
    needed: set[str]
    soname: str | None
    imported: set[tuple[str, str | None]]
    """Names and versions."""
    exported: set[tuple[str, str | None]]
    glibc: tuple[int, ...]


def read(path: Path) -> Library:
    with path.open("rb") as file:
        elf = ELFFile(file)
        names: dict[int, str] = {}
        needs = elf.get_section_by_name(".gnu.version_r")
        for _, versions in needs.iter_versions() if needs else ():
            names |= {version["vna_other"]: version.name for version in versions}
        glibc = max((tuple(map(int, name[6:].split("."))) for name in names.values() if name.startswith("GLIBC_2")), default=())
        defines = elf.get_section_by_name(".gnu.version_d")
        for number, (_, versions) in enumerate(defines.iter_versions() if defines else (), 1):
            names[number] = next(iter(versions)).name
        numbers = elf.get_section_by_name(".gnu.version")
        imported, exported = set(), set()
        for number, symbol in enumerate(elf.get_section_by_name(".dynsym").iter_symbols()):
            if not symbol.name or symbol["st_info"]["bind"] == "STB_LOCAL":
                continue
            index = numbers.get_symbol(number)["ndx"]
            entry = (symbol.name, names.get(index) if isinstance(index, int) else None)
            (imported if symbol["st_shndx"] == "SHN_UNDEF" else exported).add(entry)
        tags = list(elf.get_section_by_name(".dynamic").iter_tags())
        soname = next((tag.soname for tag in tags if tag["d_tag"] == "DT_SONAME"), None)
        return Library({tag.needed for tag in tags if tag["d_tag"] == "DT_NEEDED"}, soname, imported, exported, glibc)


def declared() -> dict[str, int]:
    """Return the driver's entry points that the sources name, and the version each came with."""
    found = re.findall(r"DRIVER\((\d+), (\w+),", (SOURCES / "cuda_driver.h").read_text())
    return {name: int(version) for version, name in found}


@pytest.fixture(scope="module", params=["x86_64", pytest.param("aarch64", marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, Library]:
    """TVM's CUDA runtime of an architecture, and ours."""
    try:
        tvm_side = runtime_files(request.param).libraries / CUDA_BACKEND
    except UserError as error:
        pytest.skip(str(error))
    output = tmp_path_factory.mktemp(request.param) / CUDA_RUNTIME
    build_cuda_runtime(request.param, output)
    return read(tvm_side), read(output)


def test_exports_what_tvm_imports(pair: tuple[Library, Library]) -> None:
    theirs, ours = pair
    wanted = {entry for entry in theirs.imported if entry[1] == CUDA_RUNTIME}
    assert len(wanted) == 32
    assert ours.soname == CUDA_RUNTIME
    assert CUDA_RUNTIME in theirs.needed
    assert {entry for entry in ours.exported if entry[1] == CUDA_RUNTIME and entry[0] != CUDA_RUNTIME} == wanted
    assert {name for name, version in ours.exported if name.startswith("cu") and version != CUDA_RUNTIME} == ADDED
    # TVM's references to the driver name no version, so any definition will do.
    assert {name for name, version in theirs.imported if name.startswith("cu") and version is None} == ADDED | set(TVM_CALLS)
    assert all(version <= OLD_DRIVER for version in TVM_CALLS.values())


def test_needs_only_an_old_driver(pair: tuple[Library, Library]) -> None:
    _, ours = pair
    assert DRIVER in ours.needed
    assert all(re.fullmatch(r"libcuda\.so\.1|libc\.so\.6|ld-linux[\w-]*\.so\.\d", name) for name in ours.needed), ours.needed
    assert ours.glibc <= (2, 27)
    driver = {name for name, _ in ours.imported if name.startswith("cu")}
    assert driver == set(declared())
    assert max(declared().values()) <= OLD_DRIVER


def test_versions_are_nvidias() -> None:
    """Every entry point is of the version that NVIDIA's own list gives it."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    headers = [header for root in roots for header in root.rglob("cudaTypedefs.h")]
    if not headers:
        pytest.skip("NVIDIA's headers are not installed; pip install 'enet-tvm[cuda]'")
    known = set(re.findall(r"PFN_(\w+_v\d+)\b", headers[0].read_text()))
    for name, version in (declared() | TVM_CALLS).items():
        assert f"{name.removesuffix('_v2')}_v{version}" in known
    for name in ADDED:
        versions = [int(entry.rpartition("_v")[2]) for entry in known if entry.startswith(f"{name}_v")]
        assert min(versions) > OLD_DRIVER


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> RecordingDriver:
    """Our runtime for this machine, beside a driver that records."""
    return RecordingDriver.build(tmp_path_factory.mktemp("cuda"))


@pytest.fixture(scope="module")
def libraries(recording: RecordingDriver) -> Path:
    return recording.folder


@pytest.fixture(scope="module")
def in_driver(recording: RecordingDriver) -> Callable[[str], dict[str, Any]]:
    """Runs Python code in a process of its own, with `cuda` and `driver` loaded; what it gives to `answer` comes back."""
    return recording.run


def test_memory(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        p, q, n, h = c_void_p(1), c_void_p(), c_size_t(), c_void_p()
        codes = [cuda.cudaMalloc(byref(p), c_size_t(64)), cuda.cudaMalloc(byref(q), c_size_t(64))]
        first = calls()
        data, back = ctypes.create_string_buffer(bytes(range(64))), ctypes.create_string_buffer(64)
        size, stream = c_size_t(64), c_void_p(0x77)
        codes += [cuda.cudaMemcpyAsync(p, data, size, 1, stream), cuda.cudaMemcpyAsync(q, p, size, 3, stream)]
        codes += [cuda.cudaMemcpyAsync(back, q, size, 2, stream)]
        same = back.raw[:64] == bytes(range(64))
        codes += [cuda.cudaMemcpyAsync(back, q, size, 4, None), cuda.cudaMemcpyAsync(back, q, c_size_t(0), 2, None)]
        codes += [cuda.cudaMemcpyPeerAsync(q, 1, p, 0, size, stream)]
        copies = calls()
        wrong = cuda.cudaMemcpyAsync(back, q, size, 9, None)
        name, text = cuda.cudaGetErrorName(wrong).decode(), cuda.cudaGetErrorString(wrong).decode()
        codes += [cuda.cudaFree(p), cuda.cudaFree(q), cuda.cudaFree(None)]
        codes += [cuda.cudaMallocHost(byref(h), size), cuda.cudaFreeHost(h)]
        codes += [cuda.cudaMalloc(byref(p), c_size_t(0))]
        answer(codes=codes, first=first, same=same, copies=copies, rest=calls(), null=p.value, wrong=[wrong, name, text])
    """)
    assert not any(got["codes"])
    assert got["same"]
    # The first call takes the device's primary context, and no later one does.
    assert got["first"] == ["cuDevicePrimaryCtxRetain(0)", "cuCtxSetCurrent(0x100)", "cuMemAlloc_v2(64)", "cuMemAlloc_v2(64)"]
    assert got["copies"] == [
        "cuMemcpyHtoDAsync_v2(64, 0x77)",
        "cuMemcpyDtoDAsync_v2(64, 0x77)",
        "cuMemcpyDtoHAsync_v2(64, 0x77)",
        "cuMemcpyAsync(64, (nil))",
        "cuDevicePrimaryCtxRetain(1)",
        "cuMemcpyPeerAsync(0x101, 0x100, 64, 0x77)",
    ]
    assert got["wrong"] == [21, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"]
    assert got["rest"] == ["cuMemFree_v2(memory)", "cuMemFree_v2(memory)", "cuMemAllocHost_v2(64)", "cuMemFreeHost(memory)"]
    assert got["null"] is None


def test_devices(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        import threading
        value, count = c_int(), c_int()
        codes = [cuda.cudaGetDeviceCount(byref(count)), cuda.cudaGetDevice(byref(value))]
        seen = [count.value, value.value]
        codes += [cuda.cudaSetDevice(1), cuda.cudaGetDevice(byref(value))]
        seen.append(value.value)
        codes += [cuda.cudaSetDevice(0), cuda.cudaSetDevice(1)]
        def other():
            mine = c_int(7)
            cuda.cudaGetDevice(byref(mine))
            seen.append(mine.value)
            seen.append(cuda.cudaFree(c_void_p(0)))
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        made = calls()
        codes += [cuda.cudaDeviceGetAttribute(byref(value), 75, 1)]
        seen.append(value.value)
        answer(codes=codes, seen=seen, made=made, wrong=[cuda.cudaSetDevice(n) for n in (2, -1, 99)], after=calls())
    """)
    assert not any(got["codes"])
    # Another thread begins with device 0.
    assert got["seen"] == [2, 0, 1, 0, 0, 5]
    assert got["made"] == [
        "cuDeviceGetCount()",
        "cuDevicePrimaryCtxRetain(1)",
        "cuCtxSetCurrent(0x101)",
        "cuDevicePrimaryCtxRetain(0)",
        "cuCtxSetCurrent(0x100)",
        "cuCtxSetCurrent(0x101)",
        "cuCtxSetCurrent(0x100)",
    ]
    assert got["wrong"] == [101, 101, 101]
    assert got["after"] == ["cuDeviceGetAttribute(75, 1)"]


def test_properties(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        out = ctypes.create_string_buffer(b"x" * 2000)
        code = cuda.cudaGetDeviceProperties(out, 1)
        at = lambda offset, kind: kind.from_buffer(out, offset).value
        answer(code=code, name=out.raw[:6].decode(), memory=at(288, c_size_t), shared=at(296, c_size_t), warp=at(308, c_int),
               major=at(360, c_int), minor=at(364, c_int), processors=at(384, c_int), rest=sorted(set(out.raw[400:1008])),
               behind=sorted(set(out.raw[1008:2000])))
    """)
    assert got == {
        "code": 0,
        "name": "Fake 1",
        "memory": 4 << 30,
        "shared": 1008,
        "warp": 32,
        "major": 5,
        "minor": 3,
        "processors": 1016,
        "rest": [0],
        "behind": [ord("x")],
    }


def test_streams_events_and_graphs(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        s, t, e, f, graph, run, ms = c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_float()
        codes = [cuda.cudaStreamCreate(byref(s)), cuda.cudaStreamCreateWithFlags(byref(t), 1)]
        codes += [cuda.cudaEventCreate(byref(e)), cuda.cudaEventCreate(byref(f))]
        calls()
        codes += [cuda.cudaEventRecord(e, s), cuda.cudaEventRecord(f, t), cuda.cudaStreamWaitEvent(t, e, 0)]
        codes += [cuda.cudaEventSynchronize(f), cuda.cudaStreamSynchronize(t), cuda.cudaEventElapsedTime(byref(ms), e, f)]
        codes += [cuda.cudaStreamBeginCapture(s, 2), cuda.cudaStreamEndCapture(s, byref(graph))]
        codes += [cuda.cudaGraphInstantiate(byref(run), graph, c_ulonglong(0)), cuda.cudaGraphLaunch(run, t)]
        codes += [cuda.cudaGraphExecDestroy(run), cuda.cudaGraphDestroy(graph)]
        codes += [cuda.cudaEventDestroy(e), cuda.cudaStreamDestroy(s)]
        made = calls()
        names = {hex(x.value): n for x, n in ((s, "s"), (t, "t"), (e, "e"), (f, "f"), (graph, "graph"), (run, "run"))}
        for number, name in names.items():
            made = [call.replace(number, name) for call in made]
        flags = cuda.cudaGraphInstantiate(byref(run), graph, c_ulonglong(1))
        answer(codes=codes, made=made, ms=ms.value, flags=[flags, cuda.cudaGetErrorName(flags).decode()], after=calls())
    """)
    assert not any(got["codes"])
    assert got["ms"] == 1.5
    assert got["made"] == [
        "cuEventRecord(e, s)",
        "cuEventRecord(f, t)",
        "cuStreamWaitEvent(t, e, 0)",
        "cuEventSynchronize(f)",
        "cuStreamSynchronize(t)",
        "cuEventElapsedTime(e, f)",
        "cuStreamBeginCapture_v2(s, 2)",
        "cuStreamEndCapture(s)",
        "cuGraphInstantiate(graph, told)",
        "cuGraphLaunch(run, t)",
        "cuGraphExecDestroy(run)",
        "cuGraphDestroy(graph)",
        "cuEventDestroy_v2(e)",
        "cuStreamDestroy_v2(s)",
    ]
    assert got["flags"] == [801, "cudaErrorNotSupported"]
    assert got["after"] == []


def test_errors(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        p = c_void_p(5)
        driver.fake_fail(b"cuMemAlloc_v2", 2)
        failed = cuda.cudaMalloc(byref(p), c_size_t(8))
        seen = [failed, p.value, cuda.cudaPeekAtLastError(), cuda.cudaPeekAtLastError()]
        seen += [cuda.cudaGetLastError(), cuda.cudaGetLastError()]
        driver.fake_fail(b"cuStreamSynchronize", 700)
        seen += [cuda.cudaStreamSynchronize(None), cuda.cudaMalloc(byref(p), c_size_t(8)), cuda.cudaGetLastError()]
        names = [cuda.cudaGetErrorName(code).decode() for code in (0, 2, 700, 777, 31337)]
        answer(seen=seen, names=names, texts=[cuda.cudaGetErrorString(code).decode() for code in (2, 31337)])
    """)
    # A success does not forget an error; asking for it does.
    assert got["seen"] == [2, None, 2, 2, 2, 0, 700, 0, 700]
    assert got["names"] == [
        "cudaSuccess",
        "cudaErrorMemoryAllocation",
        "cudaErrorIllegalAddress",
        "CUDA_ERROR_OF_THE_FAKE",
        "unrecognized error code",
    ]
    assert got["texts"] == ["out of memory", "unrecognized error code"]


def test_no_device(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        driver.fake_devices(0)
        count, p = c_int(7), c_void_p()
        codes = [cuda.cudaGetDeviceCount(byref(count)), cuda.cudaSetDevice(0), cuda.cudaMalloc(byref(p), c_size_t(8))]
        answer(codes=codes, count=count.value, name=cuda.cudaGetErrorName(codes[0]).decode(), made=calls())
    """)
    assert got == {"codes": [100, 100, 100], "count": 0, "name": "cudaErrorNoDevice", "made": []}


def test_launches(in_driver: Callable[[str], dict[str, Any]]) -> None:
    got = in_driver("""
        class Attribute(ctypes.Structure):
            _fields_ = [("id", c_int), ("_", c_int), ("value", c_uint * 16)]
        class Config(ctypes.Structure):
            _fields_ = [*((name, c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")), ("stream", c_void_p),
                        ("attributes", ctypes.POINTER(Attribute)), ("count", c_uint)]
        cuda.cudaSetDevice(0)
        calls()
        def launch(*attributes, parameters=True, extra=False):
            some = (Attribute * 4)(*(Attribute(kind, 0, (c_uint * 16)(*values)) for kind, *values in attributes))
            config = Config(1, 2, 3, 4, 5, 6, 7, 0x88, some if attributes else None, len(attributes))
            array = (c_void_p * 1)()
            return cuda.cuLaunchKernelEx(byref(config), c_void_p(0x99), array if parameters else None, array if extra else None)
        plain = [launch(), launch((0,)), launch((4, 1, 1, 1)), launch((11, 1, 1, 1), (6, 0)), launch((2, 0)),
                 launch(parameters=False, extra=True)]
        made = calls()
        together = launch((2, 1)), calls()
        refused = [launch((4, 2, 1, 1)), launch((11, 1, 1, 4)), launch((6, 1)), launch((9,)), launch((2, 1), extra=True)]
        answer(plain=plain, made=made, together=together, refused=refused, after=calls(),
               none=cuda.cuLaunchKernelEx(None, None, None, None),
               tensor_map=cuda.cuTensorMapEncodeTiled(*[None] * 12))
    """)
    assert got["plain"] == [0] * 6
    assert got["made"] == ["cuLaunchKernel(0x99, 1 2 3, 4 5 6, 7, 0x88, parameters, none)"] * 5 + [
        "cuLaunchKernel(0x99, 1 2 3, 4 5 6, 7, 0x88, none, extra)"
    ]
    assert got["together"] == [0, ["cuLaunchCooperativeKernel(0x99, 1 2 3, 4 5 6, 7, 0x88, parameters)"]]
    assert got["refused"] == [801] * 5
    assert got["after"] == []
    assert got["none"] == 1
    assert got["tensor_map"] == 801


@pytest.mark.slow
def test_tvm_runs_on_it(in_driver: Callable[[str], dict[str, Any]]) -> None:
    """TVM's own CUDA runtime, unchanged: devices, memory, a module, launches, a graph."""
    got = in_driver("""
        import numpy as np
        import tvm
        from tvm import relax
        tvm.register_global_func("tvm_callback_cuda_compile", lambda source: b"// PTX of the fake\\0", override=True)
        device = tvm.cuda(0)
        facts = [device.exist, tvm.cuda(1).exist, tvm.cuda(2).exist, device.compute_version, device.warp_size]
        facts += [device.device_name, device.total_global_memory, device.available_global_memory]
        x = np.arange(32, dtype="float32").reshape(1, 32)
        there = tvm.runtime.tensor(x, device)
        same = bool((there.numpy() == x).all())
        target = tvm.target.Target({"kind": "cuda", "arch": "sm_53", "max_threads_per_block": 1024, "thread_warp_size": 32,
                                    "max_shared_memory_per_block": 49152}, host="llvm")
        builder = relax.BlockBuilder()
        argument = relax.Var("x", relax.TensorType((1, 32), "float32"))
        with builder.function("main", [argument]):
            with builder.dataflow():
                y = argument
                for _ in range(4):  # each a kernel; those between the first and the last make the graph
                    y = builder.emit(relax.op.nn.softmax(y))
                out = builder.emit_output(relax.op.nn.softmax(y))
            builder.emit_func_output(out)
        with tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": True}), target:
            executable = tvm.compile(builder.get(), target)
        machine = relax.VirtualMachine(executable, device)
        calls()
        machine["main"](there)
        first = calls()
        machine["main"](there)
        answer(facts=facts, same=same, first=first, second=calls())
    """)
    assert got["facts"] == [True, True, False, "5.3", 32, "Fake 0", 4 << 30, 3 << 30]
    assert got["same"]
    names = [call.partition("(")[0] for call in got["first"]]
    assert "cuModuleLoadData(// PTX of the fake )" in got["first"]
    assert names.index("cuStreamBeginCapture_v2") < names.index("cuStreamEndCapture") < names.index("cuGraphInstantiate")
    assert names.count("cuLaunchKernel") >= 2
    assert "cuGraphLaunch" in [call.partition("(")[0] for call in got["second"]]
    launches = [call for call in got["first"] if call.startswith("cuLaunchKernel(")]
    assert all(re.search(r", \d+ 1 1, \d+ 1 1, 0, .*, parameters, none\)$", call) for call in launches), launches


NETWORK = """
import tvm
from tvm import relax

from enet_tvm.compiler.linking import host_linker

tvm.register_global_func("tvm_callback_cuda_compile", lambda source: b"// PTX of the fake\\0", override=True)
target = tvm.target.Target({"kind": "cuda", "arch": "sm_53", "max_threads_per_block": 1024, "thread_warp_size": 32,
                            "max_shared_memory_per_block": 49152}, host="llvm")
builder = relax.BlockBuilder()
argument = relax.Var("x", relax.TensorType((1, 3, 16, 24), "float32"))
with builder.function("main", [argument]):
    with builder.dataflow():
        out = builder.emit_output(relax.op.nn.softmax(relax.op.nn.softmax(argument)))
    builder.emit_func_output(out)
with target:
    executable = tvm.compile(builder.get(), target)
executable.export_library(sys.argv[2], fcompile=host_linker())
answer()
"""


def write_manifest(like: Path, library: Path) -> None:
    """Write the manifest of a library for a GPU, whose output has the shape of its input."""
    content = json.loads((like / "manifest.json").read_text())
    content["target"] |= {"device": "cuda", "architecture": architecture()}
    content["output"]["shape"] = [1, 3, 16, 24]
    content["classes"], content["palette"] = content["classes"][:3], content["palette"][:3]
    content["hashes"]["library"] = sha256(library)
    (library.parent / "manifest.json").write_text(json.dumps(content))


def use_over_rpc(server: Path, environment: dict[str, str]) -> None:
    """Open the GPU behind a server twice: what one session set up, the next one must set up again."""
    import numpy as np
    import tvm
    from tvm import rpc

    from enet_tvm.rpc.session_process import OPEN_GPU

    command = [server, "--key", "gpu", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        listening = re.search(r"port (\d+)", process.stderr.readline())
        assert listening is not None
        for _ in range(2):
            remote = rpc.connect("127.0.0.1", int(listening[1]), key="gpu")
            remote.get_function(OPEN_GPU)()
            assert remote.cuda(0).exist
            assert not remote.cuda(2).exist
            x = np.arange(24, dtype=np.float32)
            there = tvm.runtime.tensor(x, remote.cuda(0))
            np.testing.assert_array_equal(there.numpy(), x)
            del there, remote
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle for a PC, or a board, with a GPU, unpacked: everything but the GPU is real."""
    folder = tmp_path_factory.mktemp("board")
    target = {"x86_64": "gtx-1080", "aarch64": "jetson-tx1"}[architecture()]
    write_bundle(BundleRequest(load_target(target)), folder / "board.tar.gz")
    with tarfile.open(folder / "board.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    return folder / f"enet-tvm-{target}"


@pytest.mark.slow
def test_the_runner_launches_one_graph_a_run(libraries: Path, board: Path, tmp_path: Path) -> None:
    """An artifact that has a function for that; and one that says it is for a later GPU."""
    try:
        artifact = recorded_artifact()
    except UserError as error:
        pytest.skip(str(error))
    driver = tmp_path / "driver"
    driver.mkdir()
    shutil.copy(libraries / DRIVER, driver)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver)}
    later, log, labels = tmp_path / "later", tmp_path / "log", tmp_path / "labels.pgm"
    shutil.copytree(artifact, later)
    manifest = later / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"arch": "sm_53"', '"arch": "sm_61"'))

    def run(*arguments: object, **variables: str) -> tuple[int, str, list[str]]:
        log.unlink(missing_ok=True)
        command = [board / "bin/enet-run", "--runs", "4", "--warmup", "1", *arguments]
        result = subprocess.run(
            list(map(str, command)),
            env={**environment, "FAKE_CUDA_LOG": str(log), **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result.returncode, result.stderr, [line.partition("(")[0] for line in log.read_text().splitlines()]

    code, said, names = run("--labels", labels, artifact)
    assert (code, said) == (0, "")
    assert labels.read_bytes().startswith(b"P5")
    captured = names[names.index("cuStreamBeginCapture_v2") : names.index("cuStreamEndCapture")]
    assert captured.count("cuLaunchKernel") == 3
    # The first run warms up and is captured, and each of the other four is one launch.
    assert (names.count("cuLaunchKernel"), names.count("cuGraphLaunch")) == (6, 4)
    code, said, names = run(artifact, ENET_TVM_CUDA_GRAPH="0")
    assert (code, names.count("cuLaunchKernel"), names.count("cuGraphLaunch")) == (0, 15, 0)
    code, said, names = run(later)
    assert code == 2
    assert "was compiled for sm_61, and this machine's GPU is sm_53, which is older; compile it for this board" in said
    assert "cuModuleLoadData" not in names


@pytest.mark.slow
def test_the_runner_on_it(libraries: Path, board: Path, tiny_artifact: Any, tmp_path: Path) -> None:
    """An artifact without such a function, as releases before it wrote them; and the server."""
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    command = [sys.executable, "-c", PRELUDE + NETWORK, str(libraries), str(artifact / "enet.so")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert compiled.returncode == 0, compiled.stderr
    write_manifest(tiny_artifact.directory, artifact / "enet.so")
    driver = tmp_path / "driver"
    driver.mkdir()
    shutil.copy(libraries / DRIVER, driver)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_CUDA_LOG": str(tmp_path / "log")}
    command = [board / "bin/enet-run", "--runs", "2", "--warmup", "1", artifact]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "at 24x16 on cuda" in result.stdout
    names = [line.partition("(")[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert names.count("cuModuleLoadData") == 1
    # Three runs, each waited for, of two kernels or of one that does both.
    assert names.count("cuLaunchKernel") in (3, 6)
    assert names.count("cuStreamSynchronize") >= 3
    assert names.index("cuMemcpyHtoDAsync_v2") < names.index("cuLaunchKernel") < names.index("cuMemcpyDtoHAsync_v2")
    use_over_rpc(board / "bin/enet-rpcd", environment)
    del environment["LD_LIBRARY_PATH"]
    if Path("/dev/nvidiactl").exists():
        return
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "cannot load TVM's CUDA runtime: libcuda.so.1: cannot open shared object file" in result.stderr


@pytest.mark.emulated
@pytest.mark.slow
def test_jetson_tx1_but_for_its_gpu(emulated_device: Any, tmp_path: Path) -> None:
    """ENet and the bundle for Jetson TX1 on an emulated Cortex-A57, down to the driver, which records: what is left to a
    board is what its GPU and its driver do with the PTX."""
    target = load_target("jetson-tx1")
    try:
        artifact = shipped_enet("jetson-tx1")
        write_bundle(BundleRequest(target, artifact=artifact), tmp_path / "board.tar.gz")
    except UserError as error:
        if not re.search(r"download|pip install|CUDA", str(error)):
            raise
        pytest.skip(str(error))
    with tarfile.open(tmp_path / "board.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    driver = tmp_path / "driver"
    driver.mkdir()
    build_driver("aarch64", driver)
    board = tmp_path / "enet-tvm-jetson-tx1"
    qemu, *rest = emulated_device.command(board / "bin/enet-run", "--runs", "1", "--warmup", "1", board / "artifact")
    command = [qemu, "-E", f"LD_LIBRARY_PATH={driver}", "-E", f"FAKE_CUDA_LOG={tmp_path / 'log'}", *rest]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert "for jetson-tx1 at 64x48 on cuda" in result.stdout
    log = (tmp_path / "log").read_text()
    assert "cuModuleLoadData(.version 6.5 .target sm_53)" in log
    launches = [line for line in log.splitlines() if line.startswith("cuLaunchKernel(")]
    assert len(launches) == 2 * read_manifest(artifact).kernel_count
