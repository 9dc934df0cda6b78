from __future__ import annotations

import errno
import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enet_tvm.artifact import (
    LIBRARY_NAME,
    MANIFEST_NAME,
    Manifest,
    check_artifact,
    check_destination,
    elf_architecture,
    read_manifest,
    write_artifact,
)
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.machine import architecture

OTHER = {"x86_64": (183, "aarch64"), "aarch64": (62, "x86_64")}


@pytest.fixture
def manifest(tiny_artifact) -> Manifest:
    return read_manifest(tiny_artifact.directory)


def copy_library(source: Path) -> Callable[[Path], Any]:
    return lambda path: shutil.copyfile(source / LIBRARY_NAME, path)


def test_what_is_written_is_read(tiny_artifact, manifest: Manifest, tmp_path: Path):
    bare = manifest.model_copy(update={"hashes": manifest.hashes.model_copy(update={"library": None})})
    written = write_artifact(tmp_path / "new" / "artifact", bare, copy_library(tiny_artifact.directory))
    assert written == manifest == check_artifact(tmp_path / "new" / "artifact")
    assert written.hashes.library == sha256(tiny_artifact.directory / LIBRARY_NAME)
    assert sorted(path.name for path in (tmp_path / "new" / "artifact").iterdir()) == [LIBRARY_NAME, MANIFEST_NAME]
    assert written.kernel_count == 2
    assert written.kernels[1].ops == ("conv2d",)


def test_manifest_is_the_same_every_time(tiny_artifact, manifest: Manifest, tmp_path: Path):
    for name in ("a", "b"):
        write_artifact(tmp_path / name, manifest, copy_library(tiny_artifact.directory))
    assert (tmp_path / "a" / MANIFEST_NAME).read_bytes() == (tmp_path / "b" / MANIFEST_NAME).read_bytes()


def test_an_artifact_is_replaced(tiny_artifact, manifest: Manifest, tmp_path: Path):
    write_artifact(tmp_path / "artifact", manifest, copy_library(tiny_artifact.directory))
    (tmp_path / "artifact" / "stray").touch()
    changed = write_artifact(
        tmp_path / "artifact", manifest.model_copy(update={"command": "again"}), copy_library(tiny_artifact.directory)
    )
    assert read_manifest(tmp_path / "artifact") == changed
    assert not (tmp_path / "artifact" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_other_peoples_files_are_not_replaced(manifest: Manifest, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds something else than an artifact"):
        write_artifact(tmp_path, manifest, lambda path: pytest.fail("must not get so far"))
    with pytest.raises(UserError, match="is a file"):
        check_destination(tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def raising(error: Exception) -> Callable[[Path], Any]:
    def save(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    return save


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("Compilation error:\ncollect2: fatal error: cannot write: No space left on device"),
    ],
)
def test_failed_write_is_one_sentence_and_leaves_what_was(tiny_artifact, manifest: Manifest, tmp_path: Path, error: Exception):
    write_artifact(tmp_path / "artifact", manifest, copy_library(tiny_artifact.directory))
    for place in ("artifact", "new"):
        with pytest.raises(UserError, match=r"cannot write .*(space|Read-only)"):
            write_artifact(tmp_path / place, manifest, raising(error))
    assert check_artifact(tmp_path / "artifact") == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["artifact"]


def test_bugs_are_not_hidden_as_user_errors(manifest: Manifest, tmp_path: Path):
    with pytest.raises(RuntimeError, match="undefined symbol"):
        write_artifact(tmp_path / "a", manifest, raising(RuntimeError("undefined symbol")))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tiny_artifact, manifest: Manifest, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_artifact(tmp_path / "file" / "artifact", manifest, copy_library(tiny_artifact.directory))
    with pytest.raises(UserError, match="cannot write"):
        write_artifact("/proc/artifact", manifest, copy_library(tiny_artifact.directory))


def test_library_of_another_architecture_than_said_is_a_bug(tiny_artifact, manifest: Manifest, tmp_path: Path):
    other = OTHER[architecture()][1]
    wrong = manifest.model_copy(update={"target": manifest.target.model_copy(update={"architecture": other})})
    with pytest.raises(ValueError, match="the manifest says"):
        write_artifact(tmp_path / "a", wrong, copy_library(tiny_artifact.directory))


# Damages, each with the sentence it must end in. `edit` changes the manifest, `patch` the library (hash kept in step).


def edit(change: Callable[[dict], Any]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        content = json.loads((directory / MANIFEST_NAME).read_text())
        change(content)
        (directory / MANIFEST_NAME).write_text(json.dumps(content))

    return damage


def patch(change: Callable[[bytearray], Any], rehash: bool) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        library = directory / LIBRARY_NAME
        content = bytearray(library.read_bytes())
        change(content)
        library.write_bytes(content)
        if rehash:
            edit(lambda manifest: manifest["hashes"].update(library=sha256(library)))(directory)

    return damage


def write(text: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / MANIFEST_NAME).write_text(text)


def flip(content: bytearray) -> None:
    content[len(content) // 2] ^= 1


def truncate(content: bytearray) -> None:
    del content[len(content) // 2 :]


REFUSALS = {
    "no directory": (shutil.rmtree, r"there is no directory .*artifact; give one"),
    "no manifest": (lambda directory: (directory / MANIFEST_NAME).unlink(), r"is not an artifact: it has no manifest\.json"),
    "manifest is not JSON": (write("{"), r"is not valid JSON"),
    "manifest is not text": (lambda directory: (directory / MANIFEST_NAME).write_bytes(b"\xff\xfe\x00"), r"is not valid JSON"),
    "manifest is a list": (write("[]"), r"schema version None, and this release reads 1"),
    "mean is NaN": (edit(lambda m: m["input"]["mean"].__setitem__(1, float("nan"))), r"input\.mean\.1: Input should be|NaN"),
    "std is infinite": (
        edit(lambda m: m["input"]["std"].__setitem__(0, float("inf"))),
        r"input\.std\.0: Input should be|Infinity",
    ),
    "std is zero": (edit(lambda m: m["input"]["std"].__setitem__(2, 0)), r"input\.std\.2: Input should be greater"),
    "std is below zero": (edit(lambda m: m["input"]["std"].__setitem__(2, -0.5)), r"input\.std\.2: Input should be greater"),
    "schema of another release": (edit(lambda m: m.update(schema_version=2)), r"schema version 2, and this release reads 1"),
    "key missing": (edit(lambda m: m.pop("classes")), r"not a complete manifest \(classes: Field required\)"),
    "inner key missing": (edit(lambda m: m["input"].pop("mean")), r"\(input\.mean: Field required\)"),
    "unknown key": (edit(lambda m: m.update(colour="red")), r"\(colour: Extra inputs"),
    "colour missing": (edit(lambda m: m["palette"].pop()), r"4 classes, 3 colours and 4 output channels differ"),
    "kernel missing": (edit(lambda m: m["kernels"].pop()), r"kernel_count is 2, but 1 kernels are listed"),
    "library elsewhere": (edit(lambda m: m.update(library="../../other.so")), r"\(library: String should match"),
    "no library": (lambda directory: (directory / LIBRARY_NAME).unlink(), r"enet\.so is missing"),
    "library truncated": (patch(truncate, rehash=False), r"truncated or edited"),
    "library empty": (patch(bytearray.clear, rehash=False), r"truncated or edited"),
    "library edited": (patch(flip, rehash=False), r"truncated or edited"),
    "no hash": (edit(lambda m: m["hashes"].pop("library")), r"truncated or edited"),
    "another TVM": (
        edit(lambda m: m["versions"].update(apache_tvm="0.99.0")),
        r"compiled with apache-tvm 0\.99\.0, and .* pip install apache-tvm==0\.99\.0 apache-tvm-ffi==",
    ),
    "another ffi": (edit(lambda m: m["versions"].update(apache_tvm_ffi="0.0.1")), r"compiled with apache-tvm-ffi 0\.0\.1"),
    "another architecture": (
        patch(lambda content: struct.pack_into("<H", content, 18, OTHER[architecture()][0]), rehash=True),
        rf"was compiled for {OTHER[architecture()][1]}, and this machine is {architecture()}; .* --target native",
    ),
    "an unknown architecture": (
        patch(lambda content: struct.pack_into("<H", content, 18, 4711), rehash=True),
        r"was compiled for ELF machine 4711",
    ),
    "not a library": (patch(lambda content: content.__setitem__(0, 0), rehash=True), r"is not a shared library"),
    "another processor": (
        edit(lambda m: m["target"].update(cpu_features=["avx1024f", "neon9"], name="x86-64-v9")),
        r"compiled for x86-64-v9 and this processor lacks avx1024f, neon9; .* --target native",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(spoilt_artifact: Path, case: str):
    damage, sentence = REFUSALS[case]
    assert check_artifact(spoilt_artifact)
    damage(spoilt_artifact)
    with pytest.raises(UserError) as caught:
        check_artifact(spoilt_artifact)
    message = str(caught.value)
    assert re.search(sentence, message)
    assert "\n" not in message


def test_checks_come_in_order(spoilt_artifact: Path):
    """Nothing is concluded from a manifest's details before the file it speaks of is known to be the right one."""
    order = ["another processor", "another architecture", "another TVM", "library edited", "schema of another release"]
    for case in order:
        damage, sentence = REFUSALS[case]
        damage(spoilt_artifact)
        with pytest.raises(UserError, match=sentence):
            check_artifact(spoilt_artifact)


def test_elf_header_of_either_byte_order(tmp_path: Path):
    path = tmp_path / "lib"
    path.write_bytes(b"\x7fELF\x02\x02" + bytes(12) + b"\x00\xb7" + bytes(44))
    assert elf_architecture(path) == "aarch64"
    path.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00" + bytes(44))
    assert elf_architecture(path) == "x86_64"
    path.write_bytes(b"\x7fELF")
    with pytest.raises(ValueError, match="no ELF header"):
        elf_architecture(path)
