"""A target as people write it, and as TVM takes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from enet_tvm.compatibility import Machine, Requirements
from enet_tvm.errors import UserError
from enet_tvm.size import Size, parse_size
from enet_tvm.version import TESTED_STACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tvm

NATIVE = "native"

# In what follows, a field's description is what an error says was expected of it.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_Sentence = Annotated[str, Field(min_length=1, pattern=r"\S")]
_Count = Annotated[int, Field(ge=1, strict=True)]
_Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]


def _size(value: Any) -> Any:
    if isinstance(value, Size):
        return value
    if not isinstance(value, str):
        raise ValueError("not a text")
    try:
        return parse_size(value)
    except UserError as error:
        raise ValueError(str(error)) from error


SizeText = Annotated[Size, BeforeValidator(_size), PlainSerializer(str)]
"""A `Size` that is written as WIDTHxHEIGHT."""


class PeakFigures(BaseModel):
    """Peak figures from the machine's specifications: a bound, not a measurement.

    Attributes
    ----------
    gflops : float or None
        Float32 operations of the target's cores together, in 10**9 a second; a multiply-add is two.
    gbps : float or None
        Bandwidth of the main memory, in 10**9 bytes a second.
    source : str
        Sentence that says how the figures come about.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gflops: _Positive | None = Field(default=None, description="a number above 0, in 10^9 operations a second")
    gbps: _Positive | None = Field(default=None, description="a number above 0, in 10^9 bytes a second")
    source: _Sentence = Field(description="a sentence that says how the figures come about")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.gflops is None and self.gbps is None:
            raise ValueError("gflops, gbps or both")
        return self


class GpuSpec(BaseModel):
    """An NVIDIA GPU beside the CPU of a target: the network runs on it, and the CPU launches its kernels.

    Attributes
    ----------
    arch : str
        Architecture in NVIDIA's spelling, such as ``sm_53``.
    ptx : str
        Version of the PTX ISA that the oldest driver it may meet knows; newer drivers take older PTX.
    multiprocessors : int
        Number of streaming multiprocessors of the smallest of these GPUs.
    max_registers : int
        32-bit registers that a kernel may use per thread; the inspection refuses more.
    registers_per_block : int
        32-bit registers for all the threads of a block.
    max_threads_per_block : int
        Threads that a block may have.
    max_shared_memory_per_block : int
        Shared memory that a block may have, in bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    arch: str = Field(pattern=r"^sm_\d{2,3}$", description='"sm_" and the compute capability, such as "sm_53"')
    ptx: str = Field(pattern=r"^\d+\.\d$", description='the PTX ISA version of the oldest driver it may meet, such as "6.5"')
    multiprocessors: _Count = Field(description="a whole number of streaming multiprocessors")
    max_registers: Annotated[int, Field(ge=32, le=255, strict=True)] = Field(
        default=255, description="a whole number from 32 to 255, per thread"
    )
    registers_per_block: _Count = Field(default=65536, description="a whole number of 32-bit registers")
    max_threads_per_block: Annotated[int, Field(ge=128, le=1024, strict=True)] = Field(
        default=1024, description="a whole number from 128 to 1024"
    )
    max_shared_memory_per_block: _Count = Field(default=49152, description="a whole number of bytes")


class TargetSpec(BaseModel):
    """A machine to compile for: a CPU, or a GPU and the CPU beside it.

    Attributes
    ----------
    name : str
        Name that ``--target`` takes, and that of its file.
    description : str
        Text that says which machines it stands for.
    triple, mcpu : str
        LLVM's names of the platform and of the processor.
    mattr : tuple of str
        LLVM features switched on (``+name``) or off (``-name``) beside those of `mcpu`.
    cpu_features : tuple of str
        Extensions that the processor must have, spelt as in ``/proc/cpuinfo``.
    cores : int
        Cores that the network is expected to run on.
    core_list : tuple of int
        Numbers of those cores, as Linux counts processors, where a machine has others of another kind: its threads are bound to
        them. Empty for any.
    aliases : tuple of str
        Other names that ``--target`` takes.
    memory : int or None
        Main memory of the smallest of these machines, in MB of 2**20 bytes.
    toolchain : {"auto", "system", "zig"}
        Linker: this machine's C compiler where it can and Zig's elsewhere, or always the one or the other.
    rpc_key : str
        Name of the device at an RPC tracker; by default the target's.
    size : Size or None
        Width and height of the input in pixels, where a compilation names none.
    notes : tuple of str
        Sentences on how to prepare the board.
    roofline : PeakFigures or None
        Peak figures of the machine, or of its GPU where there is one.
    gpu : GpuSpec or None
        The GPU that the network runs on; None where it runs on the CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME, description="letters, digits, dots, dashes and underscores (rename the file)")
    description: _Sentence = Field(description="a text that says which machines it stands for")
    triple: str = Field(
        pattern=r"^(x86_64|aarch64)-(\w+-)?linux-gnu$",
        description='LLVM\'s name of the platform, "x86_64-linux-gnu" or "aarch64-linux-gnu"',
    )
    mcpu: str = Field(pattern=r"^\S+$", description='LLVM\'s name of the processor, such as "cortex-a72"')
    mattr: tuple[Annotated[str, Field(pattern=r"^[+-][^\s,]+$")], ...] = Field(
        default=(), description='a list of LLVM features, such as ["+dotprod", "-sve"]'
    )
    cpu_features: tuple[Annotated[str, Field(pattern=r"^[^\s,]+$")], ...] = Field(
        default=(), description='a list of extensions as /proc/cpuinfo spells them, such as ["asimd", "crc32"]'
    )
    cores: Annotated[int, Field(ge=1, le=1024, strict=True)] = Field(default=4, description="a whole number from 1 to 1024")
    core_list: tuple[Annotated[int, Field(ge=0, le=1023, strict=True)], ...] = Field(
        default=(),
        description="a list of as many numbers from 0 to 1023 as there are cores, such as [4, 5, 6, 7]",
    )
    aliases: tuple[Annotated[str, Field(pattern=_NAME)], ...] = Field(
        default=(), description="a list of names of letters, digits, dots, dashes and underscores"
    )
    memory: Annotated[int, Field(ge=1, strict=True)] | None = Field(default=None, description="a whole number of MB")
    toolchain: Literal["auto", "system", "zig"] = Field(default="auto", description='"auto", "system" or "zig"')
    # The server's command line parts keys from options by spaces, and the tracker their kind from their name by colons.
    rpc_key: str = Field(default="", pattern=r"^[^\s:]+$", description="a name without spaces and colons")
    size: SizeText | None = Field(default=None, description='a text of the form "WIDTHxHEIGHT", both divisible by 8')
    notes: tuple[_Sentence, ...] = Field(default=(), description="a list of sentences on how to prepare the board")
    roofline: PeakFigures | None = Field(default=None, description="a section with gflops, gbps or both, and their source")
    gpu: GpuSpec | None = Field(default=None, description="a section with arch, ptx and multiprocessors")

    @model_validator(mode="before")
    @classmethod
    def _say_what_follows(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        said: dict[str, Any] = {"rpc_key": content.get("name", "")}
        if isinstance(named := content.get("core_list"), (list, tuple)) and named:
            said["cores"] = len(named)
        return {**said, **content}

    @field_validator("core_list")
    @classmethod
    def _is_each_core_once(cls, numbers: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if numbers and not len(numbers) == len(set(numbers)) == info.data.get("cores"):
            raise ValueError("not as many numbers as cores")
        return numbers

    @property
    def architecture(self) -> Literal["x86_64", "aarch64"]:
        """Instruction set, as uname spells it."""
        return "aarch64" if self.triple.startswith("aarch64") else "x86_64"

    @property
    def requirements(self) -> Requirements:
        """What is compiled for the target needs of a machine, whatever versions it is compiled with."""
        if self.gpu is None:
            return Requirements(self.architecture, self.cpu_features)
        return Requirements(self.architecture, self.cpu_features, "cuda", gpu_arch=self.gpu.arch)

    @property
    def machine(self) -> Machine:
        """The least that a machine of this kind has, with the versions that this release packs for it."""
        without, arch = (f"{self.name} has no GPU", None) if self.gpu is None else (None, self.gpu.arch)
        return Machine(self.architecture, frozenset(self.cpu_features), TESTED_STACK, lambda: without, lambda: arch)

    def to_tvm(self) -> tvm.target.Target:
        """Return TVM's target, a GPU's with the CPU as its host.

        The number of cores is always given: TVM would take this machine's for it.

        Raises
        ------
        UserError
            When LLVM does not know the processor.
        """
        import tvm

        known = tvm.target.codegen.llvm_get_cpu_archlist(tvm.target.Target({"kind": "llvm", "mtriple": self.triple}))
        if self.mcpu not in {str(name) for name in known}:
            raise UserError(f"target {self.name}: LLVM knows no processor '{self.mcpu}' for {self.triple}; correct its mcpu")
        cpu = {"kind": "llvm", "mtriple": self.triple, "mcpu": self.mcpu, "mattr": list(self.mattr), "num-cores": self.cores}
        if self.gpu is None:
            return tvm.target.Target(cpu | ({"cl-opt": list(_LLVM_OPTIONS)} if self.architecture == "aarch64" else {}))
        limits = {
            "thread_warp_size": 32,
            "max_threads_per_block": self.gpu.max_threads_per_block,
            "max_num_threads": self.gpu.max_threads_per_block,
            "max_shared_memory_per_block": self.gpu.max_shared_memory_per_block,
            "registers_per_block": self.gpu.registers_per_block,
        }
        return tvm.target.Target({"kind": "cuda", "arch": self.gpu.arch, **limits}, host=cpu)


_LLVM_OPTIONS = ("-aarch64-enable-gep-opt:bool=true",)
"""What LLVM is told beside the processor: to address neighbours from one register with constants, so that two of them are one
load or store. Of ENet in float32 that takes 1.3 % of the instructions."""

_SECTIONS: dict[str, type[BaseModel]] = {"roofline": PeakFigures, "gpu": GpuSpec}


def make_target(content: dict[str, Any], origin: str | Path) -> TargetSpec:
    """Return the target that `content` describes, as read from a file.

    Parameters
    ----------
    content : dict
        Fields of `TargetSpec`, by name.
    origin : str or Path
        Place to correct, which an error names.

    Raises
    ------
    UserError
        When a key is missing, unknown or of another kind: it names the key and what was expected.
    """
    try:
        return TargetSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{origin}: {_complaint(first['type'], first['loc'], first['input'])}; correct it") from error


def _complaint(kind: str, location: Sequence[str | int], value: Any) -> str:
    """Return what is wrong with a key, in words of the file."""
    # A list's index and what pydantic adds for alternatives say nothing of the file's own keys.
    keys = [step for step in location if isinstance(step, str)]
    model: type[BaseModel] = TargetSpec
    prefix = ""
    if (section := _SECTIONS.get(keys[0])) is not None and keys[1:]:
        model, prefix, keys = section, f"{keys[0]}.", keys[1:]
    field = model.model_fields.get(keys[0])
    if field is None:
        return f"{prefix}{keys[0]} is not a key; known are {', '.join(prefix + name for name in model.model_fields)}"
    what = "is missing; it must be" if kind == "missing" else f"is {value!r} and must be"
    return f"{prefix}{keys[0]} {what} {field.description}"
