"""TVM's CUDA backend without a driver, in processes of its own: what is loaded stays loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tvm

from enet_tvm.compiler.cuda import backend

PROLOGUE = """
import sys
import tvm
from enet_tvm.compiler.cuda import backend
def there():
    return tvm.get_global_func("ffi.Module.create.cuda", allow_missing=True) is not None
"""


def run(script: str) -> str:
    result = subprocess.run([sys.executable, "-c", PROLOGUE + script], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def without_a_driver() -> None:
    if "True" in run("print(there())"):
        pytest.skip("this machine has a CUDA driver and runtime: TVM's backend loads by itself")


@pytest.mark.slow
@pytest.mark.usefixtures("without_a_driver")
def test_stand_ins_make_it_load():
    """Both of them, also where the machine has one of the two, and after `import tvm`."""
    out = run(
        "assert not there()\n"
        "backend._opens = lambda name: False\n"
        "print(backend.load_cuda_backend())\n"
        "assert there()\n"
        "assert backend.load_cuda_backend()  # the second time does nothing, and says the same\n"
        "print(tvm.cuda(0).exist)\n"
    )
    assert out.split("\n")[:2] == ["('libcuda.so.1', 'libcudart.so.13')", "False"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_a_driver")
def test_a_library_that_the_machine_has_is_not_replaced():
    """Here the machine's own is made up from a stand-in: what counts is that it is asked for first, by its name."""
    out = run(
        "import ctypes, pathlib, tempfile\n"
        "folder = pathlib.Path(tempfile.mkdtemp())\n"
        "own = backend.make_stand_in('libcudart.so.13', backend.backend_library(), folder)\n"
        "ctypes.CDLL(str(own), ctypes.RTLD_GLOBAL)\n"
        "print(backend.load_cuda_backend())\n"
    )
    assert out.strip() == "('libcuda.so.1',)"


@pytest.mark.usefixtures("without_a_driver")
@pytest.mark.slow
def test_a_runtime_in_nvidias_package_is_not_replaced(tmp_path: Path):
    """Else a process that compiles and then runs would find no GPU: the first library of a name stays the only one."""
    packages = tmp_path / "packages"
    folder = packages / "nvidia/cu13/lib"
    folder.mkdir(parents=True)
    (packages / "nvidia/__init__.py").touch()
    backend.make_stand_in(backend.RUNTIME, backend.backend_library(), folder)  # in NVIDIA's place
    out = run(
        f"sys.path.insert(0, {str(packages)!r})\n"
        "opens = backend._opens\n"
        "backend._opens = lambda place: '/' in place and opens(place)  # as where the system has neither\n"
        "print(backend.load_cuda_backend())\n"
        "print([line.split()[-1] for line in open('/proc/self/maps') if 'libcudart' in line][0])\n"
    )
    assert out.split("\n")[:2] == ["('libcuda.so.1',)", str(folder / backend.RUNTIME)]


@pytest.mark.slow
def test_compiling_for_a_processor_loads_nothing():
    out = run(
        "import enet_tvm.compiler.pipeline\n"
        "from enet_tvm.targets import load_target\n"
        "load_target('native').to_tvm()\n"
        "maps = open('/proc/self/maps').read()\n"
        "print('nvrtc' in maps, '/enet-tvm-' in maps)\n"
    )
    assert out.split() == ["False", "False"]


def test_the_stand_ins_have_what_tvms_library_wants(tmp_path: Path):
    """And by the symbol version that it asks for; without it the loader refuses the library."""
    from elftools.elf.elffile import ELFFile

    library = backend.backend_library()
    for name, prefix in ((backend.DRIVER, "cu"), (backend.RUNTIME, "cuda")):
        wanted = backend.wanted_functions(name, library)
        assert wanted
        assert all(function.startswith(prefix) for function in wanted)
        with backend.make_stand_in(name, library, tmp_path).open("rb") as file:
            elf = ELFFile(file)
            table = elf.get_section_by_name(".dynsym")
            has = {symbol.name for symbol in table.iter_symbols() if symbol["st_shndx"] != "SHN_UNDEF"}
            versions = elf.get_section_by_name(".gnu.version_d")
            named = {aux.name for _, auxes in versions.iter_versions() for aux in auxes} if versions else set()
        assert set(wanted) <= has
        assert (backend.RUNTIME in named) == (name == backend.RUNTIME)


def test_a_tvm_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tvm.libinfo, "package_lib_paths", lambda: [tmp_path])
    with pytest.raises(backend.UserError, match=r"has no libtvm_runtime_cuda\.so"):
        backend.backend_library()
