"""What a device loads: a directory with one compiled library and a manifest that describes it.

The compiler's side calls `write_artifact`; the runtime's side calls `check_artifact` before it loads anything.
Nothing here imports a compiler, PyTorch or TVM.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from enet_tvm.compatibility import Machine, Mismatch, Requirements, find_mismatch
from enet_tvm.errors import UserError
from enet_tvm.files import atomic_directory, check_directory_place, read_json, sha256
from enet_tvm.normalisation import Channel, Mean, Std

SCHEMA_VERSION: Final = 1
"""Version of the manifest's format, raised whenever a manifest of the release before can no longer be read."""

Precision = Literal["float32", "float16", "bfloat16", "int8"]
"""Data types that a network computes in between its input and its output."""

FRAME_FUNCTION = "frame"
"""Name of the function of a library for a GPU that takes input and output, the same memory in every call, and is one graph
(`enet_tvm.compiler.passes.add_frame`). Libraries of releases before it have ``main`` alone, which returns its output."""

MANIFEST_NAME = "manifest.json"
LIBRARY_NAME = "enet.so"

_AGAIN = "make the artifact again with 'enet-tvm compile'"
_MOST_ELEMENTS = 1 << 36  # of an input or output: what the runner in C can multiply out, and no machine holds
_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Extent = Annotated[int, Field(gt=0, le=1 << 20)]


def _of_a_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"a shape of more than {_MOST_ELEMENTS} elements")
    return shape


CoreNumber = Annotated[int, Field(ge=0, le=1023, strict=True)]
Shape4 = Annotated[tuple[Extent, Extent, Extent, Extent], AfterValidator(_of_a_size)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputInfo(_Part):
    """The input of the compiled function.

    Attributes
    ----------
    shape : tuple of int
        Shape of the input: N, C, H, W.
    mean, std : tuple of float
        Normalisation per RGB channel of pictures scaled to 0..1, ``(x - mean) / std``: finite, and no std is zero or less.
    """

    shape: Shape4
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]
    dtype: Literal["float32"] = "float32"
    layout: Literal["NCHW"] = "NCHW"


class OutputInfo(_Part):
    """The output of the compiled function: logits, N x classes x H x W float32, or labels, N x H x W uint8."""

    shape: Shape4 | Annotated[tuple[Extent, Extent, Extent], AfterValidator(_of_a_size)]
    dtype: Literal["float32", "uint8"] = "float32"
    layout: Literal["NCHW", "NHW"] = "NCHW"

    @property
    def labels(self) -> bool:
        """Whether the output is labels rather than logits."""
        return self.layout == "NHW"

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (len(self.shape), self.dtype, self.layout) not in ((4, "float32", "NCHW"), (3, "uint8", "NHW")):
            raise ValueError("an output is float32 NCHW or uint8 NHW")
        return self


class TargetInfo(_Part):
    """What the library was compiled for.

    Attributes
    ----------
    name : str
        Name of the target, as given to ``enet-tvm compile --target``.
    triple, mcpu : str
        LLVM's names of the platform and of the processor.
    cpu_features : tuple of str
        Extensions that the machine must have, spelt as in ``/proc/cpuinfo``; empty if the baseline suffices.
    architecture : str
        Instruction set, as uname spells it.
    device : {"cpu", "cuda"}
        Kind of processor that the kernels run on; on a GPU, the CPU launches them.
    core_list : tuple of int
        Numbers of the processors that threads are bound to, where the machine has others of another kind; empty for any.
    """

    name: str
    triple: str
    mcpu: str
    cpu_features: tuple[str, ...] = ()
    architecture: Literal["x86_64", "aarch64"]
    device: Literal["cpu", "cuda"] = "cpu"
    core_list: Annotated[tuple[CoreNumber, ...], Field(max_length=1024)] = ()

    @model_serializer(mode="wrap")
    def _any_core_without_a_word(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        return content if self.core_list else {key: value for key, value in content.items() if key != "core_list"}


class Versions(_Part):
    """Versions of the software that made the artifact."""

    enet_tvm: str
    apache_tvm: str
    apache_tvm_ffi: str

    @property
    def stack(self) -> dict[str, str]:
        """The versions of TVM's stack, by distribution."""
        return {"apache-tvm": self.apache_tvm, "apache-tvm-ffi": self.apache_tvm_ffi}


class Hashes(_Part):
    """SHA-256 of the weights file and of the library (the latter is filled in by `write_artifact`)."""

    weights: Sha256
    library: Sha256 | None = None


class OutputLayout(_Part):
    """How a kernel's output lies in memory.

    Attributes
    ----------
    shape : tuple of int
        Shape of the buffer as it lies in memory, blocks and padding included.
    block : int
        Channels that lie innermost, as in NCHW16c; 1 for NCHW.
    pad : int
        Columns of zeros at each end of a row.
    dtype : str
        Type of an element; types below 32 bits, but float16, are stored several to a 32-bit word, the first in the lowest bits.
    scale, zero : float, int
        Scale and zero point of 8-bit codes, which mean ``scale * (code - zero)``; "int8" stores them less 128.
    """

    shape: tuple[int, ...]
    block: int = 1
    pad: int = 0
    dtype: Literal["float32", "float16", "bfloat16", "uint8", "int8"] = "float32"
    scale: float = 1.0
    zero: int = 0


class Kernel(_Part):
    """One launch of the forward pass.

    Attributes
    ----------
    name : str
        Name of the function in the library.
    ops : tuple of str
        Operators fused into it, in order.
    layers : tuple of str
        Modules of the network that it computes; empty when unknown.
    output_layout : OutputLayout or None
        Memory layout of its output, its last argument; None when unknown.
    flops, bytes : int
        Floating-point operations of its convolution (0 if it has none), and least number of bytes that it must move.
    """

    name: str
    ops: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    output_layout: OutputLayout | None = None
    flops: int = 0
    bytes: int = 0


class DeviceKernel(_Part):
    """Resources of a GPU that a kernel takes, as the assembler of its architecture found them.

    Attributes
    ----------
    name : str
        Name of its entry in the device code.
    registers : int
        Number of 32-bit registers per thread.
    spill_bytes, stack_bytes : int
        Bytes of registers written to memory and read back, and bytes of local memory, per thread.
    shared_bytes : int
        Bytes of shared memory per block.
    """

    name: str
    registers: int
    spill_bytes: int
    stack_bytes: int
    shared_bytes: int


class DeviceReport(_Part):
    """What a library's device code asks of a GPU and its driver.

    Attributes
    ----------
    arch : str
        Architecture that it was compiled for, such as ``sm_53``; newer ones run it too.
    ptx : str
        Version of the PTX ISA that the driver must know.
    kernels : tuple of DeviceKernel
        Resources of each kernel, sorted by name.
    """

    arch: str
    ptx: str
    kernels: Annotated[tuple[DeviceKernel, ...], Field(min_length=1)]

    def __str__(self) -> str:
        registers = max(kernel.registers for kernel in self.kernels)
        spills = sum(kernel.spill_bytes for kernel in self.kernels)
        shared = max(kernel.shared_bytes for kernel in self.kernels)
        return (
            f"PTX {self.ptx} for {self.arch} with {len(self.kernels)} kernels of at most {registers} registers, "
            f"{spills or 'no'} bytes of them spilled, {shared or 'no'} bytes of shared memory"
        )


class LibraryReport(_Part):
    """What the library asks of the system that loads it, read from its ELF headers.

    Attributes
    ----------
    machine : str
        Instruction set, as uname spells it.
    needed : tuple of str
        Shared libraries that it is linked against.
    glibc : str or None
        The newest version of the C library that it asks for; None if it asks for nothing.
    size : int
        Size of the file in bytes.
    exported_kernels : int
        Number of kernels that TVM's loader can look up.
    device : DeviceReport or None
        Report on the code for a GPU; None for a library that runs on the processor.
    """

    machine: str
    needed: tuple[str, ...] = ()
    glibc: str | None = None
    size: int
    exported_kernels: int
    device: DeviceReport | None = None

    def __str__(self) -> str:
        needs = f"needs {', '.join(self.needed)}" if self.needed else "needs no other library"
        glibc = f"glibc {self.glibc}" if self.glibc else "no version of glibc"
        device = f"; {self.device}" if self.device else ""
        return f"{self.machine}, {needs}, {glibc}, {self.size / 1e6:.1f} MB{device}"


class TuningInfo(_Part):
    """The tuning log that chose kernels of the library.

    Attributes
    ----------
    log : str
        Target and directory of the log.
    kernels, of : int
        Number of distinct kernels that the log chose for, and number of those that the compilation asked for.
    threads : int
        Number of threads that the log was measured with.
    date : str
        Date and time of the log, in ISO 8601.
    modelled : bool
        Whether a model chose, and nothing was measured.
    simulated : bool
        Whether that model is of what an emulated processor executed.
    """

    log: str
    kernels: int
    of: int
    threads: int
    date: str
    modelled: bool = False
    simulated: bool = False

    @model_serializer(mode="wrap")
    def _measured_without_a_word(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        return {key: value for key, value in content.items() if value or key not in ("modelled", "simulated")}


class Manifest(_Part):
    """Description of an artifact, written beside the library as ``manifest.json``.

    Attributes
    ----------
    schema_version : int
        Version of the manifest's format, `SCHEMA_VERSION`.
    network : str
        Name of the network.
    classes : tuple of str
        Class names, in the order of the output channels.
    palette : tuple of (int, int, int)
        RGB colour of each class.
    input, output : InputInfo, OutputInfo
        Signature of the compiled function ``main``.
    target, versions, hashes : TargetInfo, Versions, Hashes
        Target that it was compiled for, versions of what compiled it, and hashes of weights and library.
    kernels : tuple of Kernel
        The launches of one forward pass, in order.
    kernel_count : int
        Number of launches of one forward pass.
    command : str
        Command line that made the artifact.
    weights : str
        The weights file as the command named it, empty for a network that had none; what counts is its hash.
    library : str
        File name of the library in the artifact's directory.
    library_report : LibraryReport or None
        Requirements of the library on the system that loads it; None where the library was not inspected.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Data type that it computes in between its first and its last layer.
    tuning : TuningInfo or None
        Tuning log that chose its kernels; None for the defaults.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    network: str
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=256)]
    palette: tuple[tuple[Channel, Channel, Channel], ...]
    input: InputInfo
    output: OutputInfo
    target: TargetInfo
    versions: Versions
    hashes: Hashes
    kernels: tuple[Kernel, ...]
    kernel_count: int
    command: str
    weights: str = ""
    library: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=127)] = LIBRARY_NAME
    library_report: LibraryReport | None = None
    tuning: TuningInfo | None = None
    dtype: Precision = "float32"

    @property
    def requirements(self) -> Requirements:
        """What the library needs of a machine."""
        target, report = self.target, self.library_report
        arch = report.device.arch if report is not None and report.device is not None else None
        return Requirements(target.architecture, target.cpu_features, target.device, self.versions.stack, arch)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        channels = len(self.classes) if self.output.labels else self.output.shape[1]
        if not len(self.classes) == len(self.palette) == channels:
            raise ValueError(f"{len(self.classes)} classes, {len(self.palette)} colours and {channels} output channels differ")
        if self.kernel_count != len(self.kernels):
            raise ValueError(f"kernel_count is {self.kernel_count}, but {len(self.kernels)} kernels are listed")
        return self


def check_destination(directory: str | Path) -> None:
    """Refuse to write an artifact over anything but an artifact; call it before a long compilation.

    Raises
    ------
    UserError
        When `directory` is a file or below one, a directory that holds something else, or nothing can be written there.
    """
    directory = Path(directory)
    check_directory_place(directory)
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; choose another directory for the artifact")
    try:
        occupied = directory.is_dir() and any(directory.iterdir()) and not (directory / MANIFEST_NAME).is_file()
    except OSError as error:
        raise UserError(f"cannot read {directory}: {error.strerror}; choose another directory for the artifact") from error
    if occupied:
        raise UserError(f"{directory} holds something else than an artifact; choose a new or empty directory")


def write_artifact(
    directory: str | Path,
    manifest: Manifest,
    save_library: Callable[[Path], Any],
    inspect: Callable[[Path], LibraryReport] | None = None,
) -> Manifest:
    """Write the library and its manifest; `directory` appears complete or stays as it was.

    Parameters
    ----------
    directory : str or Path
        Directory of the artifact; one that is there is replaced.
    manifest : Manifest
        Complete but for ``hashes.library`` and ``library_report``, which are filled in here.
    save_library : callable
        Writes the shared library to the path it is given, such as ``executable.export_library``.
    inspect : callable, optional
        Inspects the library at the path it is given, and raises if it cannot be used: nothing is left behind then.

    Returns
    -------
    Manifest
        The manifest as written, hash and report filled in.

    Raises
    ------
    UserError
        When the directory cannot be written, the disk is full, or something else is there.
    ValueError
        When the library is not of the architecture that the manifest says.
    """
    directory = Path(directory).expanduser().resolve()
    check_destination(directory)
    with atomic_directory(directory) as temporary:
        library = temporary / manifest.library
        try:
            save_library(library)
        except RuntimeError as error:
            # The linker is another program: all that comes back of a full disk is what it printed.
            if "no space left on device" in str(error).lower():
                raise OSError(errno.ENOSPC, "No space left on device") from error
            raise
        report = inspect(library) if inspect else None
        if (made := elf_architecture(library)) != manifest.target.architecture:
            raise ValueError(f"the library was made for {made}, but the manifest says {manifest.target.architecture}")
        hashes = manifest.hashes.model_copy(update={"library": sha256(library)})
        manifest = manifest.model_copy(update={"hashes": hashes, "library_report": report})
        (temporary / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return manifest


def read_manifest(directory: str | Path) -> Manifest:
    """Return the manifest of an artifact, without looking at the library.

    Raises
    ------
    UserError
        When there is no artifact, or its manifest is broken or of another schema.
    """
    directory = Path(directory).expanduser()
    path = directory / MANIFEST_NAME
    if not directory.exists():
        raise UserError(f"there is no directory {directory}; give one that 'enet-tvm compile' wrote")
    if not path.is_file():
        raise UserError(
            f"{directory} is not an artifact: it has no {MANIFEST_NAME}; give a directory that 'enet-tvm compile' wrote"
        )
    content = read_json(path, _AGAIN)
    schema = content.get("schema_version") if isinstance(content, dict) else None
    if type(schema) is not int or schema != SCHEMA_VERSION:  # neither 1.0 nor true
        raise UserError(
            f"{path} has schema version {schema}, and this release reads {SCHEMA_VERSION}; {_AGAIN} of this release"
        )
    try:
        return Manifest.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "content"
        raise UserError(f"{path} is not a complete manifest ({where}: {first['msg']}); {_AGAIN}") from error


def check_artifact(directory: str | Path, gpu_arch: Callable[[], str | None] = lambda: None) -> Manifest:
    """Check that this machine can load an artifact, before anything of it is loaded.

    In this order: the manifest, the library's hash, the versions of the TVM stack, the library's architecture,
    the processor's features, the GPU's architecture.

    Parameters
    ----------
    directory : str or Path
        Directory of the artifact.
    gpu_arch : callable
        Returns the architecture of this machine's GPU, such as ``sm_53``, or None where it is not known; called for a library
        with device code alone. Whether there is a GPU is found out by opening it.

    Returns
    -------
    Manifest
        The artifact's manifest.

    Raises
    ------
    UserError
        When one of these checks fails; the first failure is the message.
    """
    directory = Path(directory).expanduser()
    manifest = read_manifest(directory)
    library = directory / manifest.library
    _check_library(library, manifest.hashes.library)
    try:
        made = elf_architecture(library)
    except ValueError as error:
        raise UserError(f"{library} is not a shared library ({error}); {_AGAIN}") from error
    machine = Machine.here(gpu_arch=gpu_arch)  # whose GPU is opened when the library is loaded
    needs = manifest.requirements
    if made != machine.architecture:
        needs = dataclasses.replace(needs, architecture=made)
    if (mismatch := find_mismatch(needs, machine)) is not None:
        raise UserError(_explain(mismatch, directory, manifest))
    return manifest


def _check_library(library: Path, expected: str | None) -> None:
    if not library.is_file():
        raise UserError(f"{library} is missing; copy the whole directory, or {_AGAIN}")
    try:
        actual = sha256(library)
    except OSError as error:
        raise UserError(f"cannot read {library}: {error.strerror}; check its permissions") from error
    if actual != expected:
        raise UserError(
            f"{library} is not the file its manifest was written for (truncated or edited); copy it again, or {_AGAIN}"
        )


def _explain(mismatch: Mismatch, directory: Path, manifest: Manifest) -> str:
    library = directory / manifest.library
    if mismatch.kind == "versions":
        return (
            f"{directory} was compiled with {mismatch.needed}, and {mismatch.found} is installed here; {_AGAIN}, "
            f"or run: pip install {' '.join(f'{key}=={value}' for key, value in manifest.versions.stack.items())}"
        )
    if mismatch.kind == "gpu_arch":
        return (
            f"{library} was compiled for {manifest.target.name} ({mismatch.needed}), and this machine's GPU is "
            f"{mismatch.found}, which is older; {_AGAIN} and a --target whose gpu.arch is {mismatch.found} or less"
        )
    if mismatch.kind == "architecture":
        why = f"was compiled for {mismatch.needed}, and this machine is {mismatch.found}"
    else:
        why = f"was compiled for {manifest.target.name} and this processor lacks {mismatch.needed}"
    return f"{library} {why}; {_AGAIN} --target native on this machine"


def elf_architecture(library: str | Path) -> str:
    """Return the instruction set that a shared library was compiled for, from its ELF header.

    The header's layout is that of the System V ABI, gABI chapter 4: byte 5 is the byte order, the halfword at 18
    the machine.

    Raises
    ------
    ValueError
        When the file is not ELF.
    """
    with open(library, "rb") as file:
        header = file.read(20)
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[5] not in (1, 2):
        raise ValueError("it has no ELF header")
    (machine,) = struct.unpack("<H" if header[5] == 1 else ">H", header[18:20])
    return _ELF_MACHINES.get(machine, f"ELF machine {machine}")
