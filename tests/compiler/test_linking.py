from __future__ import annotations

import platform
import shutil
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te

from enet_tvm.compiler import linking as toolchain
from enet_tvm.compiler.linking import Linker, host_linker, zig_linker
from enet_tvm.errors import UserError

MACHINE = platform.machine()
EM_AARCH64 = 183


@pytest.fixture(scope="module")
def executable():
    """A kernel that needs the C library's mathematics."""
    x = te.placeholder((16,), "float32", name="x")
    y = te.compute((16,), lambda i: te.exp(x[i]), name="y")
    return tvm.compile(tvm.IRModule({"main": te.create_prim_func([x, y])}), target="llvm")


@pytest.fixture(params=["system", pytest.param("zig", marks=pytest.mark.slow)])
def linker(request: pytest.FixtureRequest) -> Linker:
    if request.param == "zig":
        pytest.importorskip("ziglang")
        return zig_linker(MACHINE)
    if toolchain.system_driver() is None:
        pytest.skip("this machine has no C compiler")
    return host_linker()


def test_library_loads_and_repeats(executable, linker: Linker, tmp_path: Path):
    first, second = tmp_path / "first.so", tmp_path / "elsewhere" / "second.so"
    second.parent.mkdir()
    executable.export_library(str(first), fcompile=linker)
    executable.export_library(str(second), fcompile=linker)
    assert first.read_bytes() == second.read_bytes()

    x = tvm.runtime.tensor(np.linspace(-2, 2, 16, dtype="float32"))
    y = tvm.runtime.tensor(np.zeros(16, dtype="float32"))
    tvm.runtime.load_module(str(first))["main"](x, y)
    np.testing.assert_allclose(y.numpy(), np.exp(x.numpy()), rtol=1e-5)


@pytest.mark.slow
def test_other_architecture_is_linked_by_zig(tmp_path: Path):
    pytest.importorskip("ziglang")
    x = te.placeholder((16,), "float32", name="x")
    y = te.compute((16,), lambda i: x[i] + 1.0, name="y")
    target = {"kind": "llvm", "mtriple": "aarch64-unknown-linux-gnu", "mcpu": "cortex-a57"}
    built = tvm.compile(tvm.IRModule({"main": te.create_prim_func([x, y])}), target=target)
    library = tmp_path / "arm.so"
    built.export_library(str(library), fcompile=host_linker("aarch64-linux-gnu"))
    header = library.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == EM_AARCH64


def test_without_a_compiler_zig_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("ziglang")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_linker() == zig_linker(MACHINE)


def test_without_any_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install ziglang"):
        host_linker()


def test_a_compiler_that_cannot_link_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    assert toolchain.system_driver() is None


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch):
    if (gcc := shutil.which("gcc")) is None:
        pytest.skip("this machine has no gcc")
    monkeypatch.setenv("CC", "gcc -O1")
    assert host_linker().command == (gcc, "-O1")


def test_refused_objects_make_one_sentence(linker: Linker, tmp_path: Path):
    junk = tmp_path / "junk.o"
    junk.write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(UserError, match="failed to link") as caught:
        linker(tmp_path / "out.so", [str(junk)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (
            "ld: final link failed: No space left on device\\ncollect2: error: ld returned 1 exit status",
            OSError,
            "No space left",
        ),
        (
            "lib0.o: in function f\\nld: cannot find -lm\\ncollect2: error: ld returned 1 exit status",
            UserError,
            "cannot find -lm",
        ),
        ("", UserError, "no reason"),
    ],
)
def test_what_the_driver_said(said: str, error: type[Exception], match: str, tmp_path: Path):
    driver = tmp_path / "cc"
    driver.write_text(f"#!/bin/sh\nprintf '{said}' >&2\nexit 1\n")
    driver.chmod(0o755)
    with pytest.raises(error, match=match):
        Linker((str(driver),), f"{MACHINE}-unknown-linux-gnu")(tmp_path / "out.so", [])


def test_a_full_disk_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A linker that says nothing, on a disk with less room than the objects are large."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(toolchain.shutil, "disk_usage", lambda path: usage._replace(free=10))
    junk = tmp_path / "junk.o"
    junk.write_bytes(bytes(100))
    with pytest.raises(OSError, match="No space left"):
        Linker(("false",), f"{MACHINE}-unknown-linux-gnu")(tmp_path / "out.so", [str(junk)])


def test_missing_driver_makes_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match="cannot link"):
        Linker(("no-such-compiler",), f"{MACHINE}-unknown-linux-gnu")(tmp_path / "out.so", [])


def test_cache_falls_back_when_home_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pytest.importorskip("ziglang")
    folder = Path(zig_linker(MACHINE).environment["ZIG_GLOBAL_CACHE_DIR"])
    assert folder.is_dir()
    assert not folder.is_relative_to(tmp_path)


def test_toolchain_zig_is_taken_even_for_this_machine():
    pytest.importorskip("ziglang")
    assert host_linker(toolchain="zig") == zig_linker(MACHINE)


def test_toolchain_system_takes_the_cross_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    other = {"x86_64": "aarch64"}.get(MACHINE, "x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=rf"apt install gcc-{other.replace('_', '-')}-linux-gnu"):
        host_linker(f"{other}-linux-gnu", "system")
    (folder := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(folder))
    compiler = folder / f"{other}-linux-gnu-gcc"
    # All that the probe wants of a compiler: that the library it was told to write is there.
    compiler.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\necho > "$2"\n')
    compiler.chmod(0o755)
    assert host_linker(f"{other}-linux-gnu", "system").command == (str(compiler),)
