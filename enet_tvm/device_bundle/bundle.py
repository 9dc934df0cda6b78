"""Bundles: the files that a board needs, put together and written as one file."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final, Literal

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from pydantic import BaseModel, ConfigDict

from enet_tvm.artifact import MANIFEST_NAME, read_manifest
from enet_tvm.compatibility import Mismatch, find_mismatch
from enet_tvm.device_bundle.archive import Entry, write_tar
from enet_tvm.device_bundle.building import CUDA_RUNTIME, PROGRAMS, SOURCES, build_cuda_runtime, build_program
from enet_tvm.device_bundle.python_modules import module_files
from enet_tvm.device_bundle.wheels import LIBRARIES, RuntimeFiles, runtime_files
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.targets import TargetSpec
from enet_tvm.version import TESTED_STACK, __version__

VARIANTS: Final = ("c", "python")
CUDA_BACKEND: Final = "libtvm_runtime_cuda.so"
_TEMPLATES = Path(__file__).parent / "templates"
_PYTHON_ROOTS = ("enet_tvm.rpc.server", "enet_tvm.runtime.__main__")
_SUMS, _MANIFEST = "SHA256SUMS", "bundle.json"


@dataclass(frozen=True)
class BundleRequest:
    """Contents of a bundle to write.

    Attributes
    ----------
    target : TargetSpec
        Target of the board.
    variant : {"c", "python"}
        Kind of programs: in C for any board, or Python modules for boards with Python 3.11 or later.
    python : str
        The board's version of Python; of no matter to the variant "c".
    artifact : Path or None
        Directory of a compiled network to put in; None for none.
    key : str or None
        Name of the board at the tracker; by default the target's.
    """

    target: TargetSpec
    variant: str = "c"
    python: str = "3.11"
    artifact: Path | None = None
    key: str | None = None


class BundleManifest(BaseModel):
    """Description of a bundle, in it as ``bundle.json``.

    Attributes
    ----------
    variant, target, architecture, key : str
        Kind of programs, and the board's target, architecture and key at the tracker.
    python : str or None
        Version of Python that it goes with; None for the variant "c".
    versions : dict of str to str
        Versions of this package and of TVM's distributions, by name.
    glibc : str
        Newest version of the C library that a file in it asks for.
    needs : tuple of str
        Requirements that the board must meet.
    artifact : str or None
        SHA-256 of the library of the artifact that is in it.
    files : dict of str to str
        SHA-256 of every other file by path.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    variant: str
    target: str
    architecture: str
    key: str
    python: str | None
    versions: dict[str, str]
    glibc: str
    needs: tuple[str, ...]
    artifact: str | None
    files: dict[str, str]


def write_bundle(request: BundleRequest, output: str | Path) -> BundleManifest:
    """Write a bundle: the same request makes the same bytes.

    Parameters
    ----------
    request : BundleRequest
        Board and programs to pack for.
    output : str or Path
        File to write, ending in ``.tar.gz``; it appears complete or stays as it was.

    Raises
    ------
    UserError
        When a part of the request does not fit the others, something cannot be downloaded or compiled, or the file cannot be
        written.
    """
    target = request.target
    key = request.key or target.rpc_key
    if request.variant not in VARIANTS:
        raise UserError(f"'{request.variant}' is no variant; give --variant one of {', '.join(VARIANTS)}")
    if not re.fullmatch(r"[\w.-]{1,64}", key):
        raise UserError(f"the key '{key}' is not a short name of letters, digits, dots and dashes; give another --key")
    if not Path(output).name.endswith((".tar.gz", ".tgz")):
        raise UserError(f"{output} is no name of a compressed tar; let it end in .tar.gz")
    entries: dict[str, Entry] = {}
    library_hash = None
    if request.artifact is not None:
        library_hash = _add_artifact(entries, request.artifact, target)
    python = request.python if request.variant == "python" else None
    runtime = runtime_files(target.architecture, python or "3.11")
    _add_libraries(entries, runtime, target, python is None)
    if python is None:
        _add_programs(entries, runtime, target)
    else:
        _add_python(entries, runtime)
    glibc = max(_glibc_versions(entries))
    glibc_text = ".".join(map(str, glibc))
    needs = tuple(_needs(target, glibc_text, python))
    folder = f"enet-tvm-{target.name}"
    _add_texts(entries, request, key, needs, folder)
    manifest = BundleManifest(
        variant=request.variant,
        target=target.name,
        architecture=target.architecture,
        key=key,
        python=python,
        versions={"enet-tvm": __version__, **TESTED_STACK},
        glibc=glibc_text,
        needs=needs,
        artifact=library_hash,
        files={name: _digest(entry) for name, entry in sorted(entries.items())},
    )
    entries[_MANIFEST] = Entry((manifest.model_dump_json(indent=2) + "\n").encode())
    sums = "".join(f"{_digest(entry)}  {name}\n" for name, entry in sorted(entries.items()))
    entries[_SUMS] = Entry(sums.encode())
    write_tar(output, folder, entries)
    return manifest


def has_gpu(target: TargetSpec) -> bool:
    """Return whether a target computes on an NVIDIA GPU."""
    return target.gpu is not None


def _digest(entry: Entry) -> str:
    return hashlib.sha256(entry.content).hexdigest()


def _add_artifact(entries: dict[str, Entry], artifact: Path, target: TargetSpec) -> str:
    manifest = read_manifest(artifact)
    library = Path(artifact).expanduser() / manifest.library
    match find_mismatch(manifest.requirements, target.machine):
        case None:
            pass
        case Mismatch("versions"):
            raise UserError(f"{artifact} was compiled with another TVM than this release packs; compile it again")
        case Mismatch("architecture", needed, found):
            raise _foreign(artifact, target, f"was compiled for {needed}, and {target.name} is {found}")
        case Mismatch("cpu_features", needed):
            raise _foreign(artifact, target, f"needs {needed}, which {target.name} does not promise")
        case Mismatch("gpu_arch", needed, found):
            raise _foreign(artifact, target, f"was compiled for {needed}, and {target.name}'s GPU is {found}, which is older")
        case mismatch:
            raise _foreign(artifact, target, f"was compiled for a GPU, and {mismatch.found}")
    if not library.is_file() or sha256(library) != manifest.hashes.library:
        raise UserError(f"{library} is not the file its manifest was written for; compile it again")
    entries[f"artifact/{MANIFEST_NAME}"] = Entry((library.parent / MANIFEST_NAME).read_bytes())
    entries[f"artifact/{manifest.library}"] = Entry(library.read_bytes())
    assert manifest.hashes.library is not None
    return manifest.hashes.library


def _foreign(artifact: Path, target: TargetSpec, why: str) -> UserError:
    return UserError(f"{artifact} {why}; compile it with: enet-tvm compile --target {target.name} -o {artifact}")


def _add_libraries(entries: dict[str, Entry], runtime: RuntimeFiles, target: TargetSpec, with_ffi: bool) -> None:
    names = [name for name in LIBRARIES if name != CUDA_BACKEND or has_gpu(target)]
    # In the other variant, it lies where Python's part of it looks for it.
    for name in [*names, "libtvm_ffi.so"] if with_ffi else names:
        entries[f"lib/{name}"] = Entry((runtime.libraries / name).read_bytes())
    if has_gpu(target):
        with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
            library = Path(directory, CUDA_RUNTIME)
            build_cuda_runtime(target.architecture, library)
            entries[f"lib/{CUDA_RUNTIME}"] = Entry(library.read_bytes())
    for path in sorted(runtime.licenses.iterdir()):
        entries[f"licenses/{path.name}"] = Entry(path.read_bytes())


def _add_programs(entries: dict[str, Entry], runtime: RuntimeFiles, target: TargetSpec) -> None:
    with tempfile.TemporaryDirectory(prefix="enet-tvm-") as directory:
        for name in PROGRAMS:
            program = Path(directory, name)
            build_program(name, runtime.libraries, target.architecture, program)
            entries[f"bin/{name}"] = Entry(program.read_bytes(), executable=True)
    entries["licenses/stb-LICENSE.txt"] = Entry((SOURCES / "third_party/LICENSE").read_bytes())


def _add_python(entries: dict[str, Entry], runtime: RuntimeFiles) -> None:
    for path in sorted(path for path in runtime.site.rglob("*") if path.is_file()):
        entries[f"site/{path.relative_to(runtime.site)}"] = Entry(path.read_bytes())
    entries["site/tvm_ffi/lib/libtvm_ffi.so"] = Entry((runtime.libraries / "libtvm_ffi.so").read_bytes())
    for name, path in module_files(*_PYTHON_ROOTS).items():
        entries[f"site/{name}"] = Entry(path.read_bytes())


def _glibc_versions(entries: dict[str, Entry]) -> Iterator[tuple[int, ...]]:
    """Yield the versions of the C library that the files ask for, beginning with (0,)."""
    import io

    yield (0,)
    for entry in entries.values():
        if not entry.content.startswith(b"\x7fELF"):
            continue
        for section in ELFFile(io.BytesIO(entry.content)).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    for version in versions:
                        if match := re.fullmatch(r"GLIBC_([\d.]+)", version.name):
                            yield tuple(map(int, match[1].split(".")))


def _needs(target: TargetSpec, glibc: str, python: str | None) -> Iterator[str]:
    yield f"Linux on {target.architecture} with glibc {glibc} or later, libstdc++.so.6 of GCC 7 or later and libgcc_s.so.1"
    if python is not None:
        yield f"Python {python} with typing_extensions; to segment pictures there, numpy, pillow and pydantic too"
    if target.gpu is not None:
        yield f"NVIDIA's driver (libcuda.so.1) of CUDA 10.2 or later that knows PTX {target.gpu.ptx}"


def _add_texts(entries: dict[str, Entry], request: BundleRequest, key: str, needs: tuple[str, ...], folder: str) -> None:
    variant = request.variant
    artifact = "artifact" if request.artifact else "ARTIFACT"
    words = {"target": request.target.name, "architecture": request.target.architecture, "variant": variant, "folder": folder}
    words |= {"artifact": artifact, "archive_hint": f"{folder}.tar.gz", "key": key}
    words["needs"] = "\n".join(f"   - {need}" for need in needs)
    words["verify"] = _text("README-cuda.txt", words) if has_gpu(request.target) else ""
    words["run"] = _text(f"run-{variant}.txt", words)
    entries["README.txt"] = Entry(_text("README.txt", words).encode())
    entries["enet-tvm-rpc.service"] = Entry(_text("enet-tvm-rpc.service", words).encode())
    entries["device.conf"] = Entry(_text("device.conf", words).encode())
    entries["start-rpc"] = Entry(_text(f"start-rpc-{variant}", {}).encode(), executable=True)
    if variant == "python":
        entries["bin/enet-run"] = Entry(_text("enet-run-python", {}).encode(), executable=True)


def _text(name: str, words: dict[str, str]) -> str:
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    return Template(text).safe_substitute(words) if words else text
