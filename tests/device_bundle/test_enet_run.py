"""The C runner: it computes what the segmenter computes, and says in one sentence what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import shipped_enet, small_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from enet_tvm.machine import architecture, choose_cores, default_threads, usable_cpus
from enet_tvm.runtime.labels import most_likely
from enet_tvm.runtime.overlay import overlay
from enet_tvm.runtime.pictures import load_picture
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.version import TESTED_STACK

OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[architecture()]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def segmenter(tiny_artifact: Any) -> Any:
    with Segmenter.load(tiny_artifact.directory, 1) as loaded:
        yield loaded


def changed(artifact: Path, path: str, value: Any) -> Path:
    """Set one value of an artifact's manifest."""
    file = artifact / "manifest.json"
    content = json.loads(file.read_text())
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    file.write_text(json.dumps(content, indent=2))
    return artifact


def refused(result: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    assert result.returncode == code, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("enet-run: error: ")
    for word in words:
        assert word in line


def test_computes_what_the_segmenter_does(enet_run: Run, tiny_artifact: Any, segmenter: Any, tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, segmenter.size.height, segmenter.size.width)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = enet_run(
        "--logits", tmp_path / "y.npy", "--labels", tmp_path / "y.pgm", tiny_artifact.directory, tmp_path / "x.npy"
    )
    assert result.returncode == 0, result.stderr
    logits = np.load(tmp_path / "y.npy")
    np.testing.assert_array_equal(logits, segmenter.forward(x))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.pgm")), most_likely(logits[0]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "y.npy", "y.pgm"]


def test_reads_a_picture_as_the_segmenter_does(enet_run: Run, tiny_artifact: Any, segmenter: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (segmenter.size.height, segmenter.size.width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.ppm")
    content = (tmp_path / "picture.ppm").read_bytes()
    (tmp_path / "picture.ppm").write_bytes(content.replace(b"P6\n", b"P6\n# a comment\n", 1))
    result = enet_run("--logits", tmp_path / "y.npy", tiny_artifact.directory, tmp_path / "picture.ppm")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), segmenter.forward(segmenter.preprocess(pixels)))


@pytest.mark.parametrize("name", ["turned.jpg", "transparent.png", "small.ppm", "exact.png", "narrow.jpg"])
def test_pictures_of_any_size(enet_run: Run, tiny_artifact: Any, segmenter: Any, tmp_path: Path, name: str) -> None:
    """Logits, labels and overlay are those of Python, to the bit and at the picture's size."""
    size = {"small.ppm": (7, 5), "exact.png": (24, 16), "narrow.jpg": (3, 140)}.get(name, (90, 61))
    small = np.random.default_rng(5).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"turned.jpg": {"exif": exif.tobytes()}}.get(name, {})
    (image if "transparent" in name else image.convert("RGB")).save(tmp_path / name, **options)
    picture = load_picture(tmp_path / name)
    x = segmenter.preprocess(picture)
    labels = segmenter.segment(picture)
    outputs = {
        option: tmp_path / f"y{suffix}" for option, suffix in (("logits", ".npy"), ("labels", ".png"), ("overlay", ".ppm"))
    }
    written = [word for option, path in outputs.items() for word in (f"--{option}", path)]
    result = enet_run("--runs", 1, *written, "--opacity", 0.3, tiny_artifact.directory, tmp_path / name)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(outputs["logits"]), segmenter.forward(x))
    np.testing.assert_array_equal(np.asarray(Image.open(outputs["labels"])), labels)
    expected = overlay(picture, labels, segmenter.manifest.palette, 0.3)
    np.testing.assert_array_equal(np.asarray(Image.open(outputs["overlay"])), np.asarray(expected))


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("opacity", [0, 0.5, 0.501953125, 1])
def test_overlays_are_pythons(enet_run: Run, tiny_artifact: Any, segmenter: Any, tmp_path: Path, opacity: float) -> None:
    """Also with lines of several pixels: at 1500x1010 they are three, at 1001 rows two and a half, and so two."""
    small = np.random.default_rng(6).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(small).resize((1500, 1000 + round(10 * opacity)), Image.Resampling.NEAREST).save(tmp_path / "x.png")
    picture = load_picture(tmp_path / "x.png")
    result = enet_run(
        *("--runs", 1, "--overlay", tmp_path / "y.png", "--opacity", opacity, tiny_artifact.directory, tmp_path / "x.png")
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "y.png") as written:
        assert written.mode == "RGB"
        expected = overlay(picture, segmenter.segment(picture), segmenter.manifest.palette, opacity)
        np.testing.assert_array_equal(np.asarray(written), np.asarray(expected))


def test_overlays_that_cannot_be(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 16, 24), np.float32))
    artifact = tiny_artifact.directory
    refused(enet_run("--overlay", tmp_path / "y.png", artifact), "lays colours over a picture")
    refused(enet_run("--overlay", tmp_path / "y.png", artifact, tmp_path / "x.npy"), "lays colours over a picture")
    for name in ("y.jpg", "y.JPEG", "y.mp4"):
        refused(enet_run("--overlay", tmp_path / name, artifact, tmp_path / "x.png"), "are written as .png or .ppm")
        refused(enet_run("--labels", tmp_path / name, artifact, tmp_path / "x.png"), "are written as .png or .pgm")
    for opacity in ("1.01", "-0.1", "nan", "half", ""):
        refused(
            enet_run("--opacity", opacity, "--overlay", tmp_path / "y.png", artifact, tmp_path / "x.png"),
            f"--opacity is {opacity} and must be between 0 and 1",
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy", "x.png"]


def test_a_whole_enet(enet_run: Run, compiled_enet: Any, tmp_path: Path) -> None:
    with Segmenter.load(compiled_enet.directory) as segmenter:
        x = np.random.default_rng(2).standard_normal(segmenter.manifest.input.shape).astype(np.float32)
        expected = segmenter.forward(x)
    np.save(tmp_path / "x.npy", x)
    result = enet_run("--logits", tmp_path / "y.npy", compiled_enet.directory, tmp_path / "x.npy")
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), expected)


def compiled(dtype: str, labels: bool, batch: int = 1) -> Path:
    """Return the shipped ENet, compiled for this machine at a small size; skip where it has no such dot product."""
    from enet_tvm.compiler.kernels.common.elements import dot_products
    from enet_tvm.targets import load_target

    kinds = {"bfloat16": {"bfloat16"}, "int8": {"uint8", "int8"}}.get(dtype)
    if kinds and not kinds & dot_products(load_target("native").to_tvm()):
        pytest.skip(f"this processor has no dot product of {dtype}")
    return shipped_enet(dtype=dtype, labels=labels, batch=batch, optimised=kinds is not None)


def shown(enet_run: Run, artifact: Path, picture: Path, out: Path) -> np.ndarray:
    result = enet_run("--runs", 1, "--labels", out, artifact, picture)
    assert result.returncode == 0, result.stderr
    return np.asarray(Image.open(out))


def test_a_picture_on_the_standard_output_is_alone_there(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(5).standard_normal((1, 3, 16, 24)).astype(np.float32))
    expected = shown(enet_run, tiny_artifact.directory, tmp_path / "x.npy", tmp_path / "labels.pgm")
    with open(tmp_path / "printed", "wb") as printed:
        options = ("--runs", "1", "--labels", "/dev/stdout")
        result = enet_run(*options, tiny_artifact.directory, tmp_path / "x.npy", stdout=printed)
    assert result.returncode == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "printed")), expected)
    assert (tmp_path / "printed").stat().st_size == (tmp_path / "labels.pgm").stat().st_size


@pytest.mark.parametrize(
    "dtype", [None, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("float32", "bfloat16", "int8"))]
)
def test_labels_are_those_of_the_logits(enet_run: Run, tmp_path: Path, dtype: str | None) -> None:
    """Of ENet in each data type, and of a network that is compiled in a second."""
    logits, labels = (small_network(labels=whole) if dtype is None else compiled(dtype, whole) for whole in (False, True))
    picture = tmp_path / "picture.ppm"
    noise = np.random.default_rng(3).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(picture)
    of_logits, of_labels = (
        shown(enet_run, logits, picture, tmp_path / "a.pgm"),
        shown(enet_run, labels, picture, tmp_path / "b.pgm"),
    )
    with Segmenter.load(labels, 1) as segmenter:
        expected = segmenter.labels(segmenter.forward(segmenter.preprocess(Image.open(picture)))[0])
    np.testing.assert_array_equal(of_labels, expected)
    np.testing.assert_array_equal(of_labels, of_logits)
    assert len(np.unique(of_labels)) > 2, "nothing to tell apart"
    refused(enet_run("--logits", tmp_path / "y.npy", labels, picture), "has no logits", "--output logits")
    assert not (tmp_path / "y.npy").exists()
    result = enet_run("--json", tmp_path / "figures.json", labels)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "figures.json").read_text())["p50_ms"] > 0


@pytest.mark.slow
def test_labels_of_a_batch_are_those_of_its_first(enet_run: Run, tmp_path: Path) -> None:
    artifact = compiled("float32", True, batch=2)
    x = np.random.default_rng(4).standard_normal((2, 3, 48, 64)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    labels = shown(enet_run, artifact, tmp_path / "x.npy", tmp_path / "y.pgm")
    with Segmenter.load(artifact, 1) as segmenter:
        np.testing.assert_array_equal(labels, segmenter.forward(x)[0])


def test_figures(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    result = enet_run("--runs", 7, "--warmup", 0, "--threads", 1, "--json", tmp_path / "figures.json", tiny_artifact.directory)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    order = [figures[f"{name}_ms"] for name in ("fastest", "p50", "p90", "p99", "slowest")]
    assert order == sorted(order)
    assert 0 < figures["fastest_ms"] <= figures["first_ms"] <= figures["slowest_ms"]
    assert figures["runs"] == 7
    assert figures["threads"] == 1
    assert figures["library"] == json.loads((tiny_artifact.directory / "manifest.json").read_text())["hashes"]["library"]
    for value in (f"p50 {figures['p50_ms']:.3f} ms", "7 runs", "1 threads"):
        assert value in result.stdout


def test_one_run_has_percentiles(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    assert enet_run("--runs", 1, "--json", tmp_path / "one.json", tiny_artifact.directory).returncode == 0
    figures = json.loads((tmp_path / "one.json").read_text())
    assert figures["p50_ms"] == figures["p99_ms"] == figures["slowest_ms"]


def test_takes_as_many_threads_as_there_are(enet_run: Run, tiny_artifact: Any) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TVM_NUM_THREADS"}
    assert f"{len(usable_cpus())} threads" in enet_run(tiny_artifact.directory, environment=environment).stdout
    refused(enet_run("--threads", 1000, tiny_artifact.directory), "cannot use 1000 threads", f"by default {default_threads()}")


@pytest.mark.parametrize(("cores", "threads"), [([-1], 1), ([-1, 1000], 1), ([1000, 1001], None)])
def test_cores_are_those_of_the_target(
    enet_run: Run, spoilt_artifact: Path, tmp_path: Path, cores: list[int], threads: int | None
) -> None:
    """The last processor, beside one that no machine has; or none that is here. The words are Python's."""
    wanted = [usable_cpus()[core] if core < 0 else core for core in cores]
    environment = {key: value for key, value in os.environ.items() if key != "TVM_NUM_THREADS"}
    changed(spoilt_artifact, "target.core_list", wanted)
    result = enet_run("--json", tmp_path / "f.json", spoilt_artifact, environment=environment)
    figures = json.loads((tmp_path / "f.json").read_text())
    with Segmenter.load(spoilt_artifact) as segmenter:
        assert segmenter.cores == figures["cores"] == str(choose_cores(wanted))
        assert segmenter.threads == figures["threads"] == (threads or len(usable_cpus()))
    assert f"{figures['threads']} threads on {figures['cores']}, 10 runs" in result.stdout
    assert figures["processors"] == str(default_threads(cores=wanted))
    more = enet_run("--threads", len(usable_cpus()), spoilt_artifact, environment=environment)
    assert f"on {choose_cores(wanted, len(usable_cpus()))}, " in more.stdout
    if len(usable_cpus()) > 1 and threads == 1:
        assert f"{len(usable_cpus())} threads are more than the cores" in more.stdout


def test_threads_from_the_environment(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    """As TVM reads it, but never more than there are processors, and refused where TVM would take nonsense for 1."""
    for wish, threads in (("1", 1), ("1000", len(usable_cpus()))):
        environment = {**os.environ, "TVM_NUM_THREADS": wish}
        assert f"{threads} threads" in enet_run(tiny_artifact.directory, environment=environment).stdout
    for wish in ("many", "0", "99999999999"):
        refused(
            enet_run(tiny_artifact.directory, environment={**os.environ, "TVM_NUM_THREADS": wish}),
            f"TVM_NUM_THREADS is '{wish}'",
        )
    assert enet_run("--json", tmp_path / "f.json", tiny_artifact.directory).returncode == 0
    assert json.loads((tmp_path / "f.json").read_text())["processors"] == str(default_threads())


def test_spoilt_library(enet_run: Run, spoilt_artifact: Path) -> None:
    library = spoilt_artifact / "enet.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    refused(enet_run(spoilt_artifact), "is not the file its manifest was written for")
    library.unlink()
    refused(enet_run(spoilt_artifact), "cannot read", "No such file")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema_version", 2, "schema_version"),
        ("versions.apache_tvm", "0.26.0", f"0.26.0, and this runner has {TESTED_STACK['apache-tvm']}"),
        ("versions.apache_tvm_ffi", "0.1.15", f"0.1.15, and this runner has {TESTED_STACK['apache-tvm-ffi']}"),
        ("target.architecture", "riscv64", "(target.architecture)"),
        ("target.architecture", OTHER, f"was compiled for {OTHER}"),
        ("target.cpu_features", ["no-such-feature"], "no-such-feature"),
        ("input.shape", [1, 3, 16], "input.shape"),
        ("input.shape", [1, 3, 0, 8], "input.shape"),
        ("input.mean", "x", "(input.mean)"),
        ("output.shape", [1, 300, 16, 24], "4 classes, and other numbers of colours or output channels"),
        ("output.layout", "NHWC", "(output.layout)"),
        ("output.dtype", "float16", "(output.dtype)"),
        ("output.dtype", 8, "(output.dtype)"),
        ("output", {"shape": [1, 4, 16, 24], "dtype": "uint8", "layout": "NHW"}, "neither float32 NCHW nor uint8 NHW"),
        ("output", {"shape": [1, 16, 24], "dtype": "uint8", "layout": "NHW"}, "not what its manifest says"),
        ("output", {"shape": [1, 16, 24]}, "neither float32 NCHW nor uint8 NHW"),
        ("output.shape", [1, 4, 16, 25], "not what its manifest says"),
        ("input.shape", [17592186044416, 3, 1048576, 1048576], "(input.shape)"),
        ("library", "../enet.so", "(library)"),
        ("library", 3, "(library)"),
        ("hashes.library", None, "is not the file its manifest was written for"),
        ("target", {"name": "\x1b[31m"}, "not a complete manifest"),
    ],
)
def test_manifest_that_does_not_fit(enet_run: Run, spoilt_artifact: Path, path: str, value: Any, words: str) -> None:
    result = enet_run(changed(spoilt_artifact, path, value))
    refused(result, words, code=1 if "manifest says" in words else 2)


def test_a_feature_is_a_whole_word(enet_run: Run, spoilt_artifact: Path) -> None:
    # Of a name that every processor has, one letter less is none.
    name = "fpu" if os.uname().machine == "x86_64" else "asimd"
    assert enet_run(changed(spoilt_artifact, "target.cpu_features", [name])).returncode == 0
    refused(enet_run(changed(spoilt_artifact, "target.cpu_features", [name[:-1] + "_"])), "lacks")
    refused(enet_run(changed(spoilt_artifact, "target.cpu_features", [name[1:]])), "lacks")


def test_no_artifact(enet_run: Run, tmp_path: Path) -> None:
    refused(enet_run(tmp_path), "cannot read", "manifest.json")
    (tmp_path / "manifest.json").write_text("{}")
    refused(enet_run(tmp_path), "schema_version")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_manifest_crashes_it(enet_run: Run, tiny_artifact: Any, tmp_path: Path, data: st.DataObject) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(tiny_artifact.directory, artifact, dirs_exist_ok=True)
    text = bytearray((tiny_artifact.directory / "manifest.json").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(text) - 1))
        if data.draw(st.booleans()):
            text[at] = data.draw(st.sampled_from(b'{}[]",:\\ 019-truefalsn\0\xff'))
        else:
            del text[at : at + data.draw(st.integers(1, 200))]
    (artifact / "manifest.json").write_bytes(bytes(text))
    result = enet_run("--runs", 1, artifact)
    assert result.returncode in (0, 1, 2), result
    assert len(result.stderr.splitlines()) == (result.returncode != 0)


def test_inputs_that_do_not_fit(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    def of(name: str) -> subprocess.CompletedProcess[str]:
        return enet_run(tiny_artifact.directory, tmp_path / name)

    refused(of("missing.npy"), "cannot read", "missing.npy")
    np.save(tmp_path / "double.npy", np.zeros((1, 3, 16, 24)))
    refused(of("double.npy"), "float32 values of the shape (1, 3, 16, 24)")
    np.save(tmp_path / "shape.npy", np.zeros((1, 3, 24, 16), np.float32))
    refused(of("shape.npy"), "(1, 3, 16, 24)")
    np.save(tmp_path / "order.npy", np.asfortranarray(np.zeros((1, 3, 16, 24), np.float32)))
    refused(of("order.npy"), "C order")
    np.save(tmp_path / "short.npy", np.zeros((1, 3, 16, 24), np.float32))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-4])
    refused(of("short.npy"), "ends too early")
    for number in (np.nan, np.inf, -np.inf):
        np.save(tmp_path / "strange.npy", np.full((1, 3, 16, 24), number, np.float32))
        refused(of("strange.npy"), "NaN or infinity", "fill such pixels in")
    (tmp_path / "other.npy").write_bytes(b"\x93NUMPY\x09\x00")
    refused(of("other.npy"), "not a .npy file")
    for name in ("text.ppm", "empty.jpg"):
        (tmp_path / name).write_bytes(b"no picture" if "text" in name else b"")
        refused(of(name), name, "neither a JPEG nor a PNG nor an 8-bit .ppm picture")
    np.save(tmp_path / "wide.npy", np.zeros((1, 3, 16, 25), np.float32))
    refused(of("wide.npy"), "(1, 3, 16, 24)")
    Image.new("L", (24, 16)).save(tmp_path / "grey.ppm")
    refused(of("grey.ppm"), "nor an 8-bit .ppm picture")
    (tmp_path / "deep.ppm").write_bytes(b"P6\n24 16\n65535\n" + bytes(6 * 24 * 16))
    refused(of("deep.ppm"), "not an 8-bit .ppm picture")
    Image.new("RGB", (24, 16)).save(tmp_path / "cut.ppm")
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "cut.ppm").read_bytes()[:-1])
    refused(of("cut.ppm"), "ends too early")


def test_a_picture_for_a_batch(enet_run: Run, tiny_artifact_of_two: Any, tmp_path: Path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "one.ppm")
    refused(enet_run(tiny_artifact_of_two.directory, tmp_path / "one.ppm"), "takes 2 pictures at once", ".npy")


def test_outputs_that_cannot_be_written(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    Image.new("RGB", (24, 16)).save(tmp_path / "x.png")
    for option in ("--labels", "--overlay", "--logits", "--json"):
        result = enet_run(option, tmp_path / "missing" / "file", tiny_artifact.directory, tmp_path / "x.png")
        assert result.returncode == 2
        assert "cannot write" in result.stderr


def test_outputs_go_where_they_lead(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("target.json")
    assert enet_run("--runs", "1", "--json", link, tiny_artifact.directory).returncode == 0
    assert link.is_symlink()
    first = json.loads((tmp_path / "target.json").read_text())
    assert enet_run("--runs", "2", "--json", link, tiny_artifact.directory).returncode == 0
    assert link.is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["runs"] == first["runs"] + 1
    # What is printed and the figures share a file, and neither replaces the other.
    with (tmp_path / "printed.txt").open("w") as printed:
        assert enet_run("--runs", "1", "--json", "/dev/stdout", tiny_artifact.directory, stdout=printed).returncode == 0
    lines = (tmp_path / "printed.txt").read_text().splitlines()
    assert sum(line.startswith("{") for line in lines) == 1
    assert len(lines) > 1


def test_a_reader_that_has_gone(enet_run: Run, tiny_artifact: Any, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)  # so that the program finds it open
    os.close(reader)
    try:
        result = enet_run("--runs", "1", "--json", f"/dev/fd/{writer}", tiny_artifact.directory, pass_fds=(writer,))
    finally:
        os.close(writer)
    assert result.returncode == 2
    assert "cannot write" in result.stderr
    assert "Broken pipe" in result.stderr


def test_full_disk(enet_run: Run, tiny_artifact: Any) -> None:
    for option in ("--logits", "--labels"):
        # The temporary name beside it cannot be made in /dev, or the device says that it is full.
        assert "cannot write" in enet_run(option, "/dev/full/y", tiny_artifact.directory).stderr
    result = enet_run("--json", "/dev/full", tiny_artifact.directory)
    assert result.returncode == 2
    assert "No space left" in result.stderr


def test_command_line(enet_run: Run, tiny_artifact: Any) -> None:
    assert enet_run().returncode == 2
    assert "usage: enet-run" in enet_run("--help").stdout
    assert TESTED_STACK["apache-tvm"] in enet_run("--version").stdout
    refused(enet_run("--runs", "many", tiny_artifact.directory), "--runs is many")
    refused(enet_run("--runs", 0, tiny_artifact.directory), "--runs is 0")


def test_no_gpu_here(enet_run: Run, spoilt_artifact: Path) -> None:
    # The bundle of a target without a GPU has no CUDA runtime.
    refused(enet_run(changed(spoilt_artifact, "target.device", "cuda")), "CUDA runtime", code=1)
