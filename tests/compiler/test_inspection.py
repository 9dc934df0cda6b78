from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enet_tvm.artifact import LIBRARY_NAME, LibraryReport, Manifest, read_manifest, write_artifact
from enet_tvm.compiler import inspection, linking
from enet_tvm.compiler.inspection import ENTRY, inspect_library
from enet_tvm.compiler.linking import zig_linker
from enet_tvm.errors import UserError
from enet_tvm.targets import TargetSpec, load_target

pytest.importorskip("ziglang")

TARGETS = {"aarch64": "rpi3", "x86_64": "x86-64-v2"}
MACHINE = platform.machine()
OTHER = {"x86_64": "aarch64"}.get(MACHINE, "x86_64")


def spec_of(machine: str, **changes: object) -> TargetSpec:
    return load_target(TARGETS[machine]).model_copy(update=changes)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes ``library("aarch64")`` a small network with an exponential, linked by Zig; not to be changed by a test."""
    import tvm
    from tvm import relax

    made: dict[str, Path] = {}

    def make(machine: str) -> Path:
        if machine not in made:
            shape = (1, 3, 4, 8)
            builder = relax.BlockBuilder()
            x = relax.Var("x", relax.TensorType(shape, "float32"))
            with builder.function("main", [x]):
                with builder.dataflow():
                    weights = relax.const(np.ones((4, 3, 1, 1), np.float32))
                    output = builder.emit_output(relax.op.nn.conv2d(builder.emit(relax.op.exp(x)), weights))
                builder.emit_func_output(output)
            executable = tvm.compile(builder.get(), target=spec_of(machine).to_tvm())
            made[machine] = tmp_path_factory.mktemp(machine) / "enet.so"
            executable.export_library(str(made[machine]), fcompile=zig_linker(machine))
        return made[machine]

    return make


@pytest.fixture
def linked(tmp_path: Path) -> Callable[..., Path]:
    """Makes ``linked("aarch64", "int f;", "-lpthread")`` a library of C, linked by Zig."""

    def link(machine: str, source: str, *options: str) -> Path:
        code, output = tmp_path / "made.c", tmp_path / "made.so"
        code.write_text(source)
        zig_linker(machine)(output, [str(code)], options)
        return output

    return link


LOADABLE = f"const char {ENTRY}[8] = {{0}}; int __tvm_ffi_kernel(void) {{ return 0; }}\n"


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_real_library(library, machine: str):
    path = library(machine)
    report = inspect_library(path, spec_of(machine))
    assert report.machine == machine
    assert "libm.so.6" in report.needed
    assert report.glibc == "2.27"  # that is where today's expf came in
    assert report.size == path.stat().st_size
    assert report.exported_kernels == 2
    assert "glibc 2.27" in str(report)


@pytest.mark.skipif(linking.system_driver() is None, reason="this machine has no C compiler")
def test_the_systems_linker_makes_what_serves(compiled_enet):
    manifest = read_manifest(compiled_enet.directory)
    report = inspect_library(compiled_enet.directory / manifest.library, load_target("native"))
    assert report == manifest.library_report
    assert report.exported_kernels >= len({kernel.name for kernel in manifest.kernels})


@pytest.mark.slow
@pytest.mark.parametrize(("made", "wanted"), [("x86_64", "aarch64"), ("aarch64", "x86_64")])
def test_another_machine(library, made: str, wanted: str):
    with pytest.raises(UserError, match=f"it is for {made}, and {TARGETS[wanted]} is {wanted}"):
        inspect_library(library(made), spec_of(wanted))


@pytest.mark.slow
def test_nothing_needed(linked):
    report = inspect_library(linked(OTHER, LOADABLE), spec_of(OTHER))
    assert (report.needed, report.glibc) == ((), None)
    assert "needs no other library, no version of glibc" in str(report)


@pytest.mark.slow
def test_other_libraries(linked):
    source = LOADABLE + "extern int shm_open(const char *, int, int); int f(void) { return shm_open(0, 0, 0); }"
    with pytest.raises(UserError, match=r"it needs librt.so.1 beside the C library; let the target's toolchain be \"zig\""):
        inspect_library(linked(OTHER, source, "-lrt"), spec_of(OTHER))


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_newer_glibc(library, tmp_path: Path, machine: str):
    """What is carried to another machine must load on old systems; what is made here for here need not."""
    newer = tmp_path / "newer.so"
    newer.write_bytes(library(machine).read_bytes().replace(b"GLIBC_2.27", b"GLIBC_2.29"))
    carried = spec_of(machine, toolchain="zig")
    with pytest.raises(UserError, match=r"it needs glibc 2\.29, and the oldest supported system has 2\.27"):
        inspect_library(newer, carried)
    if machine == MACHINE:
        assert inspect_library(newer, spec_of(machine)).glibc == "2.29"
    else:
        with pytest.raises(UserError, match=r"glibc 2\.29"):
            inspect_library(newer, spec_of(machine))


@pytest.mark.parametrize(
    ("name", "version"),
    [("GLIBC_2.4", (2, 4)), ("GLIBC_2.2.5", (2, 2, 5)), ("GLIBC_ABI_DT_RELR", (2, 36)), ("GCC_3.0", ()), ("GLIBC_PRIVATE", ())],
)
def test_versions_of_symbols(name: str, version: tuple[int, ...]):
    assert inspection.symbol_version(name) == version


@pytest.mark.slow
def test_a_symbol_that_nobody_has(linked):
    source = LOADABLE + "extern float __made_upsf2(float); float f(float x) { return __made_upsf2(x); }"
    with pytest.raises(UserError, match="it misses __made_upsf2"):
        inspect_library(linked(OTHER, source, "-Wl,-z,undefs"), spec_of(OTHER))


@pytest.mark.slow
def test_runtime_symbols_are_not_missed(linked):
    source = LOADABLE + "extern int TVMBackendParallelLaunch(void); int f(void) { return TVMBackendParallelLaunch(); }"
    inspect_library(linked(OTHER, source, "-Wl,-z,undefs"), spec_of(OTHER))


@pytest.mark.slow
def test_what_the_loader_looks_for(linked):
    with pytest.raises(UserError, match=f"lacks {ENTRY}"):
        inspect_library(linked(OTHER, "int __tvm_ffi_kernel(void) { return 0; }"), spec_of(OTHER))
    with pytest.raises(UserError, match="exports no kernels"):
        inspect_library(linked(OTHER, f"const char {ENTRY}[8] = {{0}};"), spec_of(OTHER))


@pytest.mark.slow
def test_executable_stack(library, tmp_path: Path):
    content = bytearray(library("aarch64").read_bytes())
    with library("aarch64").open("rb") as file:
        elf = ELFFile(file)
        number = next(i for i, segment in enumerate(elf.iter_segments()) if segment["p_type"] == "PT_GNU_STACK")
        flags = elf["e_phoff"] + number * elf["e_phentsize"] + 4
    content[flags] |= 1
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="executable stack"):
        inspect_library(damaged, spec_of("aarch64"))


@pytest.mark.slow
def test_no_library(linked, library, tmp_path: Path):
    linker = zig_linker(OTHER)
    (tmp_path / "made.c").write_text("int main(void) { return 0; }")
    program = tmp_path / "program"
    subprocess.run(
        [*linker.command, "-no-pie", str(tmp_path / "made.c"), "-o", str(program)],
        env={**os.environ, **linker.environment},
        check=True,
    )
    with pytest.raises(UserError, match="no shared library of 64 bits"):
        inspect_library(program, spec_of(OTHER))
    text = tmp_path / "text.so"
    text.write_text("int main")
    with pytest.raises(UserError, match="no ELF header"):
        inspect_library(text, spec_of(OTHER))


@pytest.mark.slow
def test_text_relocations(library, tmp_path: Path):
    """The tag is what counts: linkers refuse to make such code, so another tag is turned into it."""
    content = bytearray(library("aarch64").read_bytes())
    with library("aarch64").open("rb") as file:
        dynamic = next(section for section in ELFFile(file).iter_sections() if isinstance(section, DynamicSection))
        number = next(i for i, tag in enumerate(dynamic.iter_tags()) if tag["d_tag"] == "DT_FLAGS")
        offset = dynamic["sh_offset"] + number * dynamic["sh_entsize"]
    content[offset + 8] |= 0x4
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="not position-independent"):
        inspect_library(damaged, spec_of("aarch64"))
    content[offset : offset + 16] = (22).to_bytes(8, "little") + bytes(8)
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="not position-independent"):
        inspect_library(damaged, spec_of("aarch64"))


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_library_is_refused(library, tmp_path: Path, share: float):
    content = library("aarch64").read_bytes()
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="would not load there") as caught:
        inspect_library(damaged, spec_of("aarch64"))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2500), st.binary(min_size=1, max_size=16))
def test_damaged_headers_are_refused_or_read(library, tmp_path: Path, position: int, noise: bytes):
    content = bytearray(library("aarch64").read_bytes())
    content[position : position + len(noise)] = noise
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(content)
    try:
        report = inspect_library(damaged, spec_of("aarch64"))
    except UserError:
        return
    assert report.machine == "aarch64"


def test_failed_inspection_leaves_nothing(tiny_artifact, tmp_path: Path):
    def save(path: Path) -> None:
        shutil.copyfile(tiny_artifact.directory / LIBRARY_NAME, path)

    manifest = read_manifest(tiny_artifact.directory)
    with pytest.raises(UserError, match=f"it is for {MACHINE}"):
        write_artifact(tmp_path / "out", manifest, save, lambda path: inspect_library(path, spec_of(OTHER)))
    assert list(tmp_path.iterdir()) == []


def test_manifest_holds_the_report_and_older_ones_are_read(compiled_enet):
    manifest = read_manifest(compiled_enet.directory)
    assert isinstance(manifest.library_report, LibraryReport)
    content = manifest.model_dump(mode="json", exclude={"library_report"})
    assert Manifest.model_validate(content, strict=False).library_report is None
