"""One table for both loaders: what the runtime in Python accepts, the runner in C accepts, and nothing else."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enet_tvm.artifact import (
    DeviceKernel,
    DeviceReport,
    Kernel,
    LibraryReport,
    Manifest,
    OutputLayout,
    TuningInfo,
    check_artifact,
    read_manifest,
)
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, cpu_features
from enet_tvm.runtime.pictures import load_picture

FEATURE = min(cpu_features())
"""A feature that this processor has."""
ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in FEATURE)

Edit = Callable[[str], str | bytes]


def at(path: str, value: Any) -> Edit:
    """Set a value."""

    def edit(text: str) -> str:
        content = json.loads(text)
        *parents, last = path.split(".")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
        return json.dumps(content)

    return edit


def raw(path: str, value: str) -> Edit:
    """Set a value to what JSON has no word for, or has several."""
    return lambda text: str(at(path, "@")(text)).replace('"@"', value)


def replaced(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


def nested(levels: int) -> Edit:
    return raw("command", "[" * levels + "]" * levels)


TABLE: dict[str, tuple[bool, Edit]] = {
    "as it is": (True, lambda text: text),
    "on one line": (True, lambda text: json.dumps(json.loads(text))),
    "keys in another order": (True, lambda text: json.dumps(json.loads(text), sort_keys=True)),
    "without what has a default": (True, lambda text: without(text, "weights", "library_report", "tuning", "dtype", "library")),
    "a byte-order mark": (True, lambda text: b"\xef\xbb\xbf" + text.encode()),
    "names that are not ASCII": (True, at("command", "enet-tvm compile -o straße/🚗")),
    "such a name, escaped": (True, raw("command", r'"stra\u00dfe/\ud83d\ude97\n\u0000"')),
    "float16": (True, at("dtype", "float16")),
    "a dtype that nobody computes in": (False, at("dtype", "float64")),
    "a feature that is there": (True, at("target.cpu_features", [FEATURE])),
    "the same, escaped": (True, raw("target.cpu_features", f'["{ESCAPED}"]')),
    "a feature that is not": (False, at("target.cpu_features", [FEATURE, "avx1024"])),
    "a part of a feature": (False, at("target.cpu_features", [FEATURE[:-1] + "_"])),
    "a missing feature, escaped": (False, raw("target.cpu_features", r'["\u0061vx1024"]')),
    "a feature of 64 characters": (False, at("target.cpu_features", ["a" * 64])),
    "a feature of 300 characters": (False, at("target.cpu_features", ["a" * 300])),
    "a feature of two words": (False, at("target.cpu_features", [f"{FEATURE} {FEATURE}"])),
    "a feature without a name": (False, at("target.cpu_features", [""])),
    "a feature that is no text": (False, at("target.cpu_features", [1])),
    "features that are no list": (False, at("target.cpu_features", FEATURE)),
    "a key twice": (False, replaced('"network":', '"network": "other", "network":')),
    "a key twice, once escaped": (False, replaced('"network":', r'"n\u0065twork": "other", "network":')),
    "an inner key twice": (False, replaced('"mcpu":', '"mcpu": "", "mcpu":')),
    "a key escaped": (True, replaced('"network":', r'"n\u0065twork":')),
    "a key that nobody knows": (False, at("colour", "red")),
    "trailing data": (False, lambda text: text + "{}"),
    "a trailing comma": (False, lambda text: text.rstrip().removesuffix("}") + ",}"),
    "a trailing zero byte": (False, lambda text: text + "\0"),
    "a comment": (False, lambda text: "// made by hand\n" + text),
    "single quotes": (False, lambda text: text.replace('"', "'")),
    "cut off": (False, lambda text: text[: len(text) // 2]),
    "empty": (False, lambda text: ""),
    "blanks": (False, lambda text: "\n"),
    "a list": (False, lambda text: f"[{text}]"),
    "a number": (False, lambda text: "1"),
    "64 levels": (False, nested(63)),
    "65 levels": (False, nested(65)),
    "100,000 levels": (False, nested(100_000)),
    "100,000 levels that do not end": (False, lambda text: "[" * 100_000),
    "UTF-16": (False, lambda text: text.encode("utf-16")),
    "Latin-1": (False, lambda text: str(at("command", "@")(text)).replace("@", "straße").encode("latin-1")),
    "an overlong form": (False, lambda text: str(at("command", "@")(text)).encode().replace(b"@", b"\xc0\xaf")),
    "a surrogate": (False, lambda text: str(at("command", "@")(text)).encode().replace(b"@", b"\xed\xa0\x80")),
    "half a pair, escaped": (False, raw("command", r'"\ud83d"')),
    "the other half": (False, raw("command", r'"\ude97"')),
    "a control character": (False, raw("command", '"\x01"')),
    "a line feed in a text": (False, raw("command", '"\n"')),
    "an escape that is none": (False, raw("command", r'"\x41"')),
    "17 MB": (False, lambda text: " " * (17 << 20) + text),
    "nan": (False, raw("input.mean", "[nan, 0, 0]")),
    "NaN": (False, raw("input.mean", "[NaN, 0, 0]")),
    "Infinity": (False, raw("input.mean", "[Infinity, 0, 0]")),
    "too large for a double": (False, raw("input.mean", "[1e999, 0, 0]")),
    "too large for float32": (False, at("input.mean", [1e300, 0, 0])),
    "a mean of integers": (True, at("input.mean", [0, 0, 0])),
    "a mean as text": (False, at("input.mean", ["0.5", "0.5", "0.5"])),
    "a mean of truth values": (False, at("input.mean", [True, False, False])),
    "a std of zero": (False, at("input.std", [0.2, 0, 0.2])),
    "a std below zero": (False, at("input.std", [0.2, -0.2, 0.2])),
    "a std that is too small": (False, at("input.std", [0.2, 1e-300, 0.2])),
    "two means": (False, at("input.mean", [0.5, 0.5])),
    "a fractional shape": (False, at("input.shape", [1, 3, 16.5, 24])),
    "a shape of floats": (False, raw("input.shape", "[1, 3, 16.0, 24]")),
    "a shape with an exponent": (False, raw("input.shape", "[1, 3, 16, 24e0]")),
    "a shape with leading zeros": (False, raw("input.shape", "[1, 3, 016, 24]")),
    "a shape with a sign": (False, raw("input.shape", "[+1, 3, 16, 24]")),
    "a hexadecimal shape": (False, raw("input.shape", "[1, 3, 0x10, 24]")),
    "a shape as text": (False, at("input.shape", ["1", "3", "16", "24"])),
    "a shape with a truth value": (False, at("input.shape", [True, 3, 16, 24])),
    "a negative shape": (False, at("input.shape", [1, 3, -16, 24])),
    "two negative extents": (False, at("input.shape", [1, 3, -16, -24])),
    "an empty picture": (False, at("input.shape", [1, 3, 0, 24])),
    "an extent above 2^20": (False, at("input.shape", [1, 3, (1 << 20) + 1, 1])),
    "an extent of 2^44": (False, at("input.shape", [17592186044416, 3, 1048576, 1])),
    "a product of 2^80": (False, at("input.shape", [1 << 20] * 4)),
    "an extent of 2^64": (False, at("input.shape", [1 << 64, 3, 16, 24])),
    "an extent of 5000 digits": (False, raw("input.shape", f"[1, 3, 16, {'1' * 5000}]")),
    "three extents": (False, at("input.shape", [1, 3, 16])),
    "five extents": (False, at("input.shape", [1, 3, 16, 24, 1])),
    "labels with a shape of logits": (False, at("output", {"shape": [1, 4, 16, 24], "dtype": "uint8", "layout": "NHW"})),
    "other output channels": (False, at("output.shape", [1, 5, 16, 24])),
    "no classes": (False, at("classes", [])),
    "257 classes": (False, at("classes", ["x"] * 257)),
    "a colour of 256": (False, at("palette", [[256, 0, 0]] * 4)),
    "a colour too few": (False, at("palette", [[0, 0, 0]] * 3)),
    "another number of kernels": (False, at("kernel_count", 3)),
    "a number of kernels as float": (False, raw("kernel_count", "2.0")),
    "a hash in capitals": (False, lambda text: at("hashes.library", json.loads(text)["hashes"]["library"].upper())(text)),
    "a hash of 63 digits": (False, lambda text: at("hashes.library", json.loads(text)["hashes"]["library"][:-1])(text)),
    "another hash": (False, at("hashes.library", "0" * 64)),
    "no hash": (False, at("hashes.library", None)),
    "a library elsewhere": (False, at("library", "../artifact/enet.so")),
    "a library in the same folder": (False, at("library", "./enet.so")),
    "a library with a zero byte": (False, at("library", "enet.so\0")),
    "a library with a line feed": (False, at("library", "enet.so\n")),
    "schema 2": (False, at("schema_version", 2)),
    "schema 1.0": (False, raw("schema_version", "1.0")),
    "schema true": (False, at("schema_version", True)),
    "schema as text": (False, at("schema_version", "1")),
    "another TVM": (False, at("versions.apache_tvm", "0.26.0")),
    "another architecture": (
        False,
        at("target.architecture", {"x86_64": "aarch64", "aarch64": "x86_64"}.get(architecture(), "x86_64")),
    ),
    "an unknown architecture": (False, at("target.architecture", "riscv64")),
    "an unknown device": (False, at("target.device", "vulkan")),
}


def without(text: str, *keys: str) -> str:
    content = json.loads(text)
    for key in keys:
        del content[key]
    return json.dumps(content)


def python_accepts(artifact: Path) -> bool:
    try:
        check_artifact(artifact)
    except UserError:
        return False
    return True


def c_accepts(enet_run: Any, artifact: Path) -> bool:
    result = enet_run("--runs", 1, "--warmup", 0, artifact)
    assert result.returncode in (0, 2), result
    assert len(result.stderr.splitlines()) == (result.returncode == 2)
    return bool(result.returncode == 0)


@pytest.mark.quick_cases(40)
@pytest.mark.parametrize("name", TABLE)
def test_both_loaders_say_the_same(enet_run: Any, spoilt_artifact: Path, name: str) -> None:
    accepted, edit = TABLE[name]
    path = spoilt_artifact / "manifest.json"
    content = edit(path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert (python_accepts(spoilt_artifact), c_accepts(enet_run, spoilt_artifact)) == (accepted, accepted)


@pytest.mark.parametrize("file", ["manifest.json", "enet.so"])
@pytest.mark.parametrize("kind", ["a FIFO", "a device", "a device that never ends", "a folder", "a link to nothing"])
def test_what_is_no_file(enet_run: Any, spoilt_artifact: Path, file: str, kind: str) -> None:
    """Refused at once: a reader that opened the FIFO would wait for ever."""
    path = spoilt_artifact / file
    path.unlink()
    match kind:
        case "a FIFO":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/null")
        case "a device that never ends":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
        case _:
            path.symlink_to("nowhere")
    start = time.monotonic()
    assert not c_accepts(enet_run, spoilt_artifact)
    assert not python_accepts(spoilt_artifact)
    assert time.monotonic() - start < 10


def test_a_link_to_a_file_is_one(enet_run: Any, spoilt_artifact: Path) -> None:
    for name in ("manifest.json", "enet.so"):
        (spoilt_artifact / name).rename(spoilt_artifact / f"{name}.real")
        (spoilt_artifact / name).symlink_to(f"{name}.real")
    assert python_accepts(spoilt_artifact)
    assert c_accepts(enet_run, spoilt_artifact)


# Beyond the table: every field of a manifest that has all of them, with every kind of value.


@pytest.fixture
def complete(spoilt_artifact: Path) -> dict[str, Any]:
    manifest = read_manifest(spoilt_artifact)
    kernel = Kernel(name="k", ops=("a",), layers=("b",), output_layout=OutputLayout(shape=(1, 2)), flops=1, bytes=2)
    device = DeviceReport(
        arch="sm_53", ptx="6.5", kernels=(DeviceKernel(name="k", registers=1, spill_bytes=0, stack_bytes=0, shared_bytes=0),)
    )
    library = LibraryReport(machine="x86_64", needed=("libc.so.6",), glibc="2.27", size=1, exported_kernels=1, device=device)
    tuning = TuningInfo(log="x", kernels=1, of=1, threads=1, date="2026-01-01", modelled=True)
    update = {"kernels": (kernel, kernel), "library_report": library, "tuning": tuning}
    whole = Manifest.model_validate(manifest.model_copy(update=update).model_dump())
    content: dict[str, Any] = json.loads(whole.model_dump_json())
    content["target"]["cpu_features"] = [FEATURE]
    content["target"]["core_list"] = [0, 1023]
    assert all(value is not None for value in content.values())
    return content


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


VALUES = (None, True, False, 0, -1, 1, 255, 256, 1.5, 1e300, 2**63, 2**64 - 1, "", "x", "float32", "0" * 64, [], [1], ["x"], {})


def variants(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    whole = json.dumps(content)
    for path in places(content):
        for value in (*VALUES, ...):
            changed = json.loads(whole)
            place = changed
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            yield f"{'.'.join(map(str, path))} = {value!r}", json.dumps(changed)
        if isinstance(path[-1], str):
            changed = json.loads(whole)
            place = changed
            for key in path[:-1]:
                place = place[key]
            place["another"] = 1
            yield f"{'.'.join(map(str, path[:-1]))}.another", json.dumps(changed)


def damages(content: dict[str, Any], count: int) -> Iterator[tuple[str, bytes]]:
    """Texts that are damaged byte by byte, the same every time."""
    dice = random.Random(15)
    letters = b'{}[]",:\\ 019-.eE+truefalsn\0\xff\xc3\xa9/_aZ'
    for i in range(count):
        text = bytearray(json.dumps(content, indent=1 if i % 2 else None).encode())
        for _ in range(dice.randrange(1, 3)):
            place = dice.randrange(len(text))
            match dice.randrange(3):
                case 0:
                    text[place] = dice.choice(letters)
                case 1:
                    text[place:place] = bytes([dice.choice(letters)])
                case _:
                    del text[place : place + dice.randrange(1, 6)]
        yield f"damage {i}", bytes(text)


def compare(readers: Any, artifact: Path, folder: Path, cases: Sequence[tuple[str, str | bytes]]) -> int:
    """Compare the loaders' verdicts, and return how many were accepted."""
    paths = []
    for i, (_, content) in enumerate(cases):
        paths.append(folder / str(i))
        paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    said = readers.run("verdicts", "manifest", artifact, lines=paths)
    assert len(said) == len(cases)
    differing = []
    for (name, content), verdict in zip(cases, said, strict=True):
        (artifact / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            check_artifact(artifact)
            python = "accepted"
        except UserError as error:
            python = str(error)
        if (python == "accepted") != (verdict == "accepted"):
            differing.append(f"{name}: C says {verdict}; Python says {python}")
    assert not differing, f"{len(differing)} of {len(cases)} differ:\n" + "\n".join(differing[:20])
    return said.count("accepted")


@pytest.mark.slow
def test_every_field_with_every_value(readers: Any, complete: dict[str, Any], spoilt_artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "variants"
    folder.mkdir()
    cases = list(variants(complete))
    accepted = compare(readers, spoilt_artifact, folder, cases)
    assert 100 < accepted < len(cases) // 2


@pytest.mark.slow
def test_damaged_manifests(readers: Any, complete: dict[str, Any], spoilt_artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damages"
    folder.mkdir()
    assert compare(readers, spoilt_artifact, folder, list(damages(complete, 1000))) > 20


# Pictures: the runner's are float32 arrays as numpy.save writes them, and 8-bit PPM of the network's size.

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 16, 24), }"


def npy(header: str = HEADER, version: tuple[int, int] = (1, 0), data: int = 4 * 3 * 16 * 24) -> bytes:
    text = header.encode("latin-1") + b"\n"
    length = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + text + bytes(data)


ARRAYS = {
    "as numpy.save writes it": (True, npy()),
    "version 2": (True, npy(version=(2, 0))),
    "keys in another order": (True, npy("{'shape': (1, 3, 16, 24), 'fortran_order': False, 'descr': '<f4'}")),
    "double quotes": (True, npy(HEADER.replace("'", '"'))),
    "no blanks": (True, npy(HEADER.replace(" ", ""))),
    "data behind it": (True, npy() + b"more"),
    "'<f8' beside '<f4'": (False, npy(HEADER.replace("'<f4'", "'<f8'").replace("'descr'", "'<f4': 1, 'descr'"))),
    "'<f4' in a key": (False, npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3, 16, 24), '<f4': 0}")),
    "the shape in a text": (False, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': '(1, 3, 16, 24)'}")),
    "float64": (False, npy(HEADER.replace("<f4", "<f8"))),
    "big-endian": (False, npy(HEADER.replace("<f4", ">f4"))),
    "integers": (False, npy(HEADER.replace("<f4", "<i4"))),
    "Fortran order": (False, npy(HEADER.replace("False", "True"))),
    "an order that is none": (False, npy(HEADER.replace("False", "0"))),
    "another shape": (False, npy(HEADER.replace("16, 24", "24, 16"))),
    "a shape that goes on": (False, npy(HEADER.replace("24)", "24, 1)"))),
    "a negative shape": (False, npy(HEADER.replace("16", "-16"))),
    "a huge shape": (False, npy(HEADER.replace("16", "18446744073709551632"))),
    "a shape as text": (False, npy(HEADER.replace("(1, 3, 16, 24)", "'(1, 3, 16, 24)'"))),
    "no order": (False, npy(HEADER.replace("'fortran_order': False, ", ""))),
    "code in the header": (False, npy(HEADER.replace("16", "int(16)"))),
    "trailing code": (False, npy(HEADER + " or 1")),
    "a header of 2^32 bytes": (False, npy(version=(2, 0)).replace(b"\x02\x00", b"\x02\x00\xff\xff\xff\xff", 1)),
    "a byte too few": (False, npy(data=4 * 3 * 16 * 24 - 1)),
    "no data": (False, npy(data=0)),
    "another version": (False, npy(version=(9, 0))),
    "empty": (False, b""),
    "text": (False, b"not an array"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(enet_run: Any, tiny_artifact: Any, tmp_path: Path, name: str) -> None:
    accepted, content = ARRAYS[name]
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    try:
        x = np.load(path, allow_pickle=False)
        python = x.dtype.str == "<f4" and x.shape == (1, 3, 16, 24) and bool(x.flags.c_contiguous)
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, TypeError):
        python = False
    result = enet_run("--runs", 1, "--warmup", 0, tiny_artifact.directory, path)
    assert result.returncode in (0, 2), result
    assert (python, result.returncode == 0) == (accepted, accepted)


def ppm(header: bytes = b"P6\n24 16\n255\n", data: int = 3 * 16 * 24) -> bytes:
    return header + bytes(data)


PICTURES = {
    "as Pillow writes it": (True, ppm()),
    "on one line": (True, ppm(b"P6 24 16 255 ")),
    "with comments": (True, ppm(b"P6\n# made by\n24 # wide\n16\n#\n255\n")),
    "with tabs": (True, ppm(b"P6\t24\t16\r\n255\n")),
    "data behind it": (True, ppm() + b"more"),
    "a byte too few": (False, ppm(data=3 * 16 * 24 - 1)),
    "no data": (False, ppm(data=0)),
    "no blank behind the magic number": (False, ppm(b"P624 16 255\n")),
    "a negative width": (False, ppm(b"P6\n-24 16\n255\n")),
    "a width of zero": (False, ppm(b"P6\n0 16\n255\n")),
    "a huge width": (False, ppm(b"P6\n17592186044416 1048576\n255\n")),
    "a maximum of zero": (False, ppm(b"P6\n24 16\n0\n")),
    "a maximum above 16 bits": (False, ppm(b"P6\n24 16\n65536\n")),
    "letters": (False, ppm(b"P6\n24x16\n255\n")),
    "no header": (False, b"P6"),
    "a magic number that is none": (False, ppm(b"P9\n24 16\n255\n")),
    "empty": (False, b""),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(enet_run: Any, tiny_artifact: Any, tmp_path: Path, name: str) -> None:
    accepted, content = PICTURES[name]
    path = tmp_path / "x.ppm"
    path.write_bytes(content)
    try:
        python = load_picture(path).size == (24, 16)
    except UserError:
        python = False
    result = enet_run("--runs", 1, "--warmup", 0, tiny_artifact.directory, path)
    assert result.returncode in (0, 2), result
    assert (python, result.returncode == 0) == (accepted, accepted)


def test_pictures_that_are_no_files(enet_run: Any, tiny_artifact: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.ppm")
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for name in ("fifo.ppm", "zero.npy"):
        result = enet_run(tiny_artifact.directory, tmp_path / name)
        assert result.returncode == 2
        assert "and not a file" in result.stderr
    with pytest.raises(UserError):
        load_picture(tmp_path / "fifo.ppm")


@pytest.mark.parametrize("option", ["--labels", "--overlay", "--logits", "--json"])
def test_outputs_that_are_no_files(enet_run: Any, tiny_artifact: Any, tmp_path: Path, option: str) -> None:
    """They are written into, not replaced; a link stays one."""
    x = tmp_path / "x.ppm"
    Image.new("RGB", (24, 16)).save(x)
    (tmp_path / "target").write_bytes(b"before")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "fifo")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "fifo").read_bytes()), daemon=True)
    reader.start()
    for name in ("link", "fifo"):
        result = enet_run("--runs", 1, option, tmp_path / name, tiny_artifact.directory, x)
        assert result.returncode == 0, result.stderr
    reader.join(10)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "fifo").is_fifo()
    content = (tmp_path / "target").read_bytes()
    assert content != b"before"
    assert len(got[0]) == pytest.approx(len(content), abs=20)
    assert enet_run("--runs", 1, option, "/dev/null", tiny_artifact.directory, x).returncode == 0
    assert Path("/dev/null").is_char_device()
