"""One RPC session on the device: a process of its own, which a crash, a time-out or the server's end takes with it.

It is forked from the server, which has loaded TVM's runtime but started no thread of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, bind_thread, choose_cores, cpu_features, default_threads, usable_cpus
from enet_tvm.runtime import instrument
from enet_tvm.runtime.libraries import load_runtime, runtime_folder
from enet_tvm.runtime.queues import EventClock, HostClock
from enet_tvm.version import __version__, stack_versions

FACTS = "enet_tvm.device_facts"
"""Name of the function that returns `device_facts` as JSON."""
CONFIGURE_THREADS = "enet_tvm.configure_threads"
"""Name of the function that sets the size of TVM's thread pool in this session, and returns it."""
BIND_CORES = "enet_tvm.bind_cores"
"""Name of the function that binds this session's threads to processors, given the number of threads that its client asks for, 0
for the default, and numbers of processors, joined by commas; it returns `enet_tvm.machine.CoreChoice` in words."""
OPEN_GPU = "enet_tvm.open_gpu"
"""Name of the function that loads TVM's CUDA runtime into this session; the server itself must not: it forks."""
TIME_CALL = "enet_tvm.time_call"
"""Name of the function that calls a function of a virtual machine, given both and the input, and returns the seconds."""
LAST_OUTPUT = "enet_tvm.last_output"
"""Name of the function that returns what the last such call returned."""
TIME_KERNELS = "enet_tvm.time_kernels"
"""Name of the function that calls a function of a virtual machine, given both, the input and the kind of device ("cpu" or
"cuda"), and returns the name and the seconds of every kernel as JSON; see `enet_tvm.runtime.instrument.time_kernels`."""
KEEP_OUTPUTS, KERNEL_OUTPUT = "enet_tvm.keep_outputs", "enet_tvm.kernel_output"
"""Names of the functions that call one with the same arguments and return the kernels' names as JSON, and that give out, once,
what the kernel of a number wrote."""
FIND_FILES, READ_FILE = "enet_tvm.find_files", "enet_tvm.read_file"
"""Names of the functions that find the kernel's files about the device and read one (None if it cannot be read)."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SHARE_ALL_CORES = -3  # ThreadGroup::AffinityMode::kSpecifyThreadShareAllCore


def prepare() -> None:
    """Load TVM's runtime, and what a tuner needs beside it, into the server before it forks."""
    load_runtime()
    # Without it the runtime lacks the function that fills a tuner's arguments with random numbers.
    extra = runtime_folder() / "libtvm_runtime_extra.so"
    if extra.is_file():
        ctypes.CDLL(str(extra), ctypes.RTLD_GLOBAL)


def run_session(connection: socket.socket, folder: Path, server: int) -> None:
    """Serve one client until it leaves; called in the forked process, which it turns into a group of its own.

    Parameters
    ----------
    connection : socket
        Connection to the client after the handshake, blocking.
    folder : Path
        Empty folder for what the client uploads.
    server : int
        Id of the process that forked this one: should it die, however it dies, this one is killed.
    """
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # A crash must not fill the card of a small board.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir(folder)
    _register(folder)
    load_runtime().get_global_func("rpc.ServerLoop")(connection.fileno())


def _register(folder: Path) -> None:
    tvm_ffi = load_runtime()

    def path_of(name: str) -> str:
        if not name or "\0" in name:
            raise RuntimeError(f"{name!r} is no file's name")
        path = (folder / name).resolve()
        if path == folder.resolve() or not path.is_relative_to(folder.resolve()):
            raise RuntimeError(f"{name} lies outside the session's folder")
        return str(path)

    def upload(name: str, content: bytes) -> None:
        try:
            path = Path(path_of(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            # TVM's own function does not look at whether the file could be written.
            raise RuntimeError(f"cannot store {name} on the device: {error.strerror or error}") from None

    def configure_threads(count: int) -> int:
        cpus = usable_cpus()
        count = max(1, min(int(count), len(cpus)))
        configure = tvm_ffi.get_global_func("runtime.config_threadpool")
        # The list's length is the size of the new pool; the second call lets its threads run on every processor.
        configure(_SHARE_ALL_CORES, count, [str(cpu) for cpu in cpus[:count]])
        configure(_SHARE_ALL_CORES, count, [str(cpu) for cpu in cpus])
        return int(tvm_ffi.get_global_func("runtime.NumThreads")())

    def bind_cores(threads: int, numbers: str) -> str:
        if not re.fullmatch(r"[0-9]{1,4}(,[0-9]{1,4})*", str(numbers)):
            raise RuntimeError("numbers of processors, joined by commas expected")
        choice = choose_cores({int(number) for number in str(numbers).split(",")}, int(threads) or None)
        if choice.bound:
            bind_thread(choice.bound)
        return str(choice)

    def open_gpu() -> None:
        from enet_tvm.runtime.gpu import load_cuda

        try:
            load_cuda(tvm_ffi)
        except UserError as error:
            raise RuntimeError(str(error)) from None

    def find(pattern: str) -> str:
        return "\n".join(sorted(str(path) for path in Path("/").glob(pattern.lstrip("/"))))

    def read(path: str) -> str | None:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip().strip("\0")
        except OSError:
            return None

    def time_call(machine: Any, name: str, x: Any) -> float:
        function = machine[name]
        start = time.perf_counter_ns()
        last_output[0] = function(x)
        return (time.perf_counter_ns() - start) * 1e-9

    def waiting(kind: str) -> Callable[[], None]:
        wait, device = tvm_ffi.get_global_func("runtime.Device_StreamSync"), tvm_ffi.device(kind, 0)
        return lambda: wait(device, 0)

    def time_kernels(machine: Any, name: str, x: Any, kind: str) -> str:
        clock = HostClock() if kind == "cpu" else EventClock()
        return json.dumps(instrument.time_kernels(tvm_ffi, machine, name, x, clock))

    def keep_outputs(machine: Any, name: str, x: Any, kind: str) -> str:
        wait, host = waiting(kind), tvm_ffi.device("cpu", 0)
        allocate = tvm_ffi.get_global_func("runtime.TVMTensorAllocWithScope")
        move = tvm_ffi.get_global_func("runtime.TVMTensorCopyFromTo")

        def copy(tensor: Any) -> Any:
            kept = allocate(tvm_ffi.Shape(tensor.shape), tensor.dtype, host, None)
            move(tensor, kept)
            wait()
            return kept

        outputs.clear()
        kept = instrument.keep_outputs(tvm_ffi, machine, name, x, copy)
        outputs.update(enumerate(tensor for _, tensor in kept))
        return json.dumps([kernel for kernel, _ in kept])

    def kernel_output(number: int) -> Any:
        if number not in outputs:
            raise RuntimeError(f"no output of a kernel {number} is kept")
        return outputs.pop(number)

    outputs: dict[int, Any] = {}
    last_output: list[Any] = [None]
    functions: dict[str, Any] = {
        "tvm.rpc.server.workpath": path_of,
        "tvm.rpc.server.upload": upload,
        "tvm.rpc.server.load_module": lambda name: tvm_ffi.load_module(path_of(name), keep_module_alive=False),
        FACTS: lambda: json.dumps(device_facts()),
        CONFIGURE_THREADS: configure_threads,
        BIND_CORES: bind_cores,
        OPEN_GPU: open_gpu,
        TIME_CALL: time_call,
        LAST_OUTPUT: lambda: last_output[0],
        TIME_KERNELS: time_kernels,
        KEEP_OUTPUTS: keep_outputs,
        KERNEL_OUTPUT: kernel_output,
        FIND_FILES: find,
        READ_FILE: read,
    }
    for name, function in functions.items():
        tvm_ffi.register_global_func(name, function, override=True)


def device_facts() -> dict[str, Any]:
    """Return what this machine is, and how warm and how fast it is now; what it does not say is left out.

    Returns
    -------
    dict
        Facts by name: ``model``, ``architecture``, ``system``, ``cpus`` (threads that are of use, see
        `enet_tvm.machine.default_threads`), ``processors`` (that number, and why it is less), ``cpu_features``, ``governor``,
        ``megahertz`` (of each processor now), ``celsius`` (hottest sensor), ``peak_memory_mb`` (of this process),
        ``memory_mb``, ``free_disk_mb`` (where uploads go), ``versions``.
    """
    facts: dict[str, Any] = {
        "model": _model(),
        "architecture": architecture(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": (count := default_threads()).threads,
        "processors": str(count),
        "cpu_features": sorted(cpu_features()),
        "versions": {"enet-tvm": __version__, **stack_versions()},
    }
    cpufreq = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
    if governors := sorted(set(_read_all(f"{cpufreq}/scaling_governor"))):
        facts["governor"] = ", ".join(governors)
    if speeds := [int(text) / 1e3 for text in _read_all(f"{cpufreq}/scaling_cur_freq") if text.isdecimal()]:
        facts["megahertz"] = speeds
    temperatures = [
        int(text) / 1e3 for text in _read_all("/sys/class/thermal/thermal_zone*/temp") if text.lstrip("-").isdecimal()
    ]
    if temperatures:
        facts["celsius"] = max(temperatures)
    for key, file, field in (("peak_memory_mb", "/proc/self/status", "VmHWM:"), ("memory_mb", "/proc/meminfo", "MemTotal:")):
        for line in _read_all(file):
            if match := next((row.split()[1] for row in line.splitlines() if row.startswith(field)), None):
                facts[key] = int(match) / 1024
    with contextlib.suppress(OSError):
        disk = os.statvfs(".")
        facts["free_disk_mb"] = disk.f_bavail * disk.f_frsize / 1e6
    return facts


def _model() -> str:
    for text in _read_all("/sys/firmware/devicetree/base/model"):
        return text.rstrip("\0")
    for text in _read_all("/proc/cpuinfo"):
        for line in text.splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    return platform.machine()


def _read_all(pattern: str) -> list[str]:
    texts = []
    for path in sorted(Path("/").glob(pattern.lstrip("/"))):
        with contextlib.suppress(OSError):
            texts.append(path.read_text(encoding="utf-8", errors="replace").strip())
    return texts
