from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.machine import default_threads, usable_cpus
from enet_tvm.runtime import Segmenter

SHAPE = (3, 16, 24)
CPUS = usable_cpus()


def random_input(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE)).astype(np.float32)


def tasks() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


def wait_for_end_of(started: set[int]) -> None:
    deadline = time.monotonic() + 5
    while started & tasks():
        assert time.monotonic() < deadline, "threads were left behind"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def segmenter(tiny_artifact):
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def segmenter_of_two(tiny_artifact_of_two):
    with Segmenter.load(tiny_artifact_of_two.directory) as segmenter:
        yield segmenter


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 4])
def test_forward_of_any_batch(tiny_artifact, tiny_artifact_of_two, segmenter, segmenter_of_two, batch: int):
    x = random_input(batch)
    for artifact, loaded in ((tiny_artifact, segmenter), (tiny_artifact_of_two, segmenter_of_two)):
        logits = loaded.forward(x)
        assert logits.shape == (batch, 4, 16, 24)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, artifact.reference(x), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_input_that_is_not_finite_is_refused(segmenter, segmenter_of_two, value: float, batch: int):
    """In whatever place and order of memory, also where two infinities would cancel out."""
    whole = random_input(batch)
    whole[-1, 2, 15, 23] = value
    pair = random_input(batch)
    pair[0, 0, 0, :2] = value, -value
    for loaded in (segmenter, segmenter_of_two):
        for x in (whole, pair, np.asfortranarray(whole), whole[:, :, ::-1]):
            with pytest.raises(UserError, match="holds NaN or infinity"):
                loaded.forward(x)
    for call in (segmenter.forward_timed, segmenter.run_instrumented, lambda x: segmenter.time_kernels(x, 1)):
        with pytest.raises(UserError, match="holds NaN or infinity"):
            call(whole[-1:])


@pytest.mark.filterwarnings("error")
def test_large_input_is_finite(tiny_artifact, segmenter):
    """The sum of all is more than a float32 holds."""
    x = np.full((1, *SHAPE), 1e37, np.float32)
    np.testing.assert_allclose(segmenter.forward(x), tiny_artifact.reference(x), rtol=1e-5)


def test_picture_of_floats_that_is_not_finite(segmenter):
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = np.nan
    with pytest.raises(UserError, match=r"NaN or infinite pixels; fill them in"):
        segmenter.segment(Image.fromarray(values))


def test_a_timed_pass_is_a_pass(tiny_artifact, segmenter):
    x = random_input(1)
    start = time.perf_counter()
    logits, device, transfer = segmenter.forward_timed(x)
    assert 0 < device <= time.perf_counter() - start
    assert transfer == 0  # its memory is the host's
    np.testing.assert_array_equal(logits, segmenter.forward(x))
    with pytest.raises(UserError, match="give one batch"):
        segmenter.forward_timed(random_input(2))


def test_forward_of_any_memory(tiny_artifact, segmenter):
    """Strided, read-only and unaligned arrays give what a plain one does, and are left alone."""
    plain = random_input(1)
    wide = np.zeros((1, 3, 16, 48), np.float32)
    wide[..., ::2] = plain
    frozen = plain.copy()
    frozen.flags.writeable = False
    unaligned = np.empty(plain.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(plain.shape)
    unaligned[...] = plain
    for x in (plain, wide[..., ::2], frozen, unaligned):
        np.testing.assert_allclose(segmenter.forward(x), tiny_artifact.reference(plain), atol=1e-5)
        np.testing.assert_array_equal(x, plain)


def test_results_are_not_overwritten(segmenter):
    first = segmenter.forward(random_input(1, seed=1))
    kept = first.copy()
    for seed in range(2, 6):
        segmenter.forward(random_input(1, seed=seed))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((1, 3, 16, 24)), "takes float32, not float64"),
        (np.zeros((1, 3, 16, 24), np.uint8), "takes float32, not uint8"),
        (np.zeros((1, 3, 8, 24), np.float32), "takes Nx3x16x24, not 1x3x8x24"),
        (np.zeros((1, 3, 24, 16), np.float32), "not 1x3x24x16"),
        (np.zeros((1, 1, 16, 24), np.float32), "not 1x1x16x24"),
        (np.zeros((3, 16, 24), np.float32), "not 3x16x24"),
    ],
)
def test_wrong_inputs_are_refused(segmenter, x: np.ndarray, sentence: str):
    for function in (segmenter.forward, segmenter.run_instrumented):
        with pytest.raises(UserError, match=sentence):
            function(x)


def test_preprocess(segmenter):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    x = segmenter.preprocess(pixels)
    assert x.shape == (1, *SHAPE)
    assert x.dtype == np.float32
    mean, std = np.array(segmenter.manifest.input.mean), np.array(segmenter.manifest.input.std)
    np.testing.assert_allclose(x[0].transpose(1, 2, 0), (pixels / 255 - mean) / std, atol=1e-6)
    np.testing.assert_array_equal(segmenter.preprocess(Image.fromarray(pixels)), x)


def test_arrays_of_opencv(segmenter):
    """The same picture in either order of channels gives the same labels; taken for the other, it does not."""
    rgb = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    expected = segmenter.segment(Image.fromarray(rgb))
    np.testing.assert_array_equal(segmenter.segment(bgr, channels="bgr"), expected)
    np.testing.assert_array_equal(segmenter.segment(rgb[:, :, ::-1], channels="bgr"), expected)
    np.testing.assert_array_equal(segmenter.segment(rgb), expected)
    assert (segmenter.segment(bgr) != expected).any()
    np.testing.assert_array_equal(segmenter.preprocess(bgr, channels="bgr"), segmenter.preprocess(rgb))


def test_channels_that_cannot_be(segmenter):
    for call in (segmenter.segment, segmenter.preprocess):
        with pytest.raises(UserError, match="channels come as 'rgb' or 'bgr', not 'BGR'"):
            call(np.zeros((4, 4, 3), np.uint8), channels="BGR")
        with pytest.raises(UserError, match="a PIL image is RGB; give channels='bgr' with the array that OpenCV returned"):
            call(Image.new("RGB", (4, 4)), channels="bgr")


def test_preprocess_resizes_as_pillow_does(segmenter):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 31, 3), np.uint8))
    resized = picture.resize((24, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(segmenter.preprocess(picture), segmenter.preprocess(resized))


@pytest.mark.parametrize("size", [(24, 16), (1, 1), (100, 37), (5, 200)])
def test_segment_at_the_pictures_size(tiny_artifact, segmenter, size: tuple[int, int]):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    labels = segmenter.segment(picture)
    assert labels.shape == (size[1], size[0])
    assert labels.dtype == np.uint8
    expected = np.argmax(tiny_artifact.reference(segmenter.preprocess(picture))[0], axis=0).astype(np.uint8)
    np.testing.assert_array_equal(labels, np.asarray(Image.fromarray(expected).resize(size, Image.Resampling.NEAREST)))
    np.testing.assert_array_equal(labels, segmenter.segment(np.asarray(picture)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_segment_takes_any_mode(segmenter, mode: str):
    assert segmenter.segment(Image.new(mode, (30, 20))).shape == (20, 30)


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (np.zeros((4, 4), np.uint8), r"not uint8 of shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), "HxWx3 uint8"),
        (np.zeros((4, 4, 3)), "not float64"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        ("street.jpg", "not str"),
    ],
)
def test_wrong_pictures_are_refused(segmenter, picture, sentence: str):
    with pytest.raises(UserError, match=sentence):
        segmenter.segment(picture)


def test_run_instrumented(tiny_artifact, segmenter):
    x = random_input(1)
    outputs = segmenter.run_instrumented(x)
    assert [name for name, _ in outputs] == [kernel.name for kernel in segmenter.manifest.kernels]
    np.testing.assert_allclose(outputs[0][1], 2 * x, atol=1e-6)
    np.testing.assert_array_equal(outputs[1][1], segmenter.forward(x))
    np.testing.assert_allclose(outputs[1][1], tiny_artifact.reference(x), atol=1e-5)


def test_run_instrumented_wants_one_batch(segmenter_of_two):
    assert segmenter_of_two.run_instrumented(random_input(2))[-1][1].shape == (2, 4, 16, 24)
    with pytest.raises(UserError, match="batches of 2, not 1"):
        segmenter_of_two.run_instrumented(random_input(1))


@pytest.mark.parametrize("threads", sorted({1, len(CPUS)}))
def test_as_many_threads_as_asked_for_and_none_left_behind(tiny_artifact, threads: int):
    before = tasks()
    segmenter = Segmenter.load(tiny_artifact.directory, threads=threads)
    segmenter.forward(random_input(1))
    started = tasks() - before
    # One thread calls the kernels and takes its share of them; the pool adds the others.
    assert len(started) == threads == segmenter.threads
    assert all(os.sched_getaffinity(task) == set(CPUS) for task in started)
    segmenter.close()
    wait_for_end_of(started)


@pytest.mark.parametrize("again", [False, True], ids=["loaded", "forked"])
def test_threads_are_bound_to_the_cores_that_the_target_names(spoilt_artifact: Path, again: bool):
    """To the last of the processors, as on a board whose faster cores come last; in a forked process, too."""
    name_cores(spoilt_artifact, [CPUS[-1], 1000])
    before = tasks()
    with Segmenter.load(spoilt_artifact, adaptive=False) as segmenter:
        started = tasks() - before
        assert len(started) == segmenter.threads == 1
        assert {tuple(os.sched_getaffinity(task)) for task in started} == {(CPUS[-1],)}
        assert segmenter.cores.startswith(f"cores {CPUS[-1]}: of the cores {CPUS[-1]},1000, which the target names")
        assert usable_cpus() == CPUS
        if again and (child := os.fork()) == 0:
            here = tasks()
            segmenter.forward(random_input(1))
            bound = {tuple(os.sched_getaffinity(task)) for task in tasks() - here}
            os._exit(0 if bound == {(CPUS[-1],)} else 1)
        if again:
            assert os.waitpid(child, 0)[1] == 0


def test_a_machine_without_the_cores_that_the_target_names(spoilt_artifact: Path):
    name_cores(spoilt_artifact, [1000, 1001])
    before = tasks()
    with Segmenter.load(spoilt_artifact, adaptive=False) as segmenter:
        assert segmenter.threads == len(CPUS)
        assert all(os.sched_getaffinity(task) == set(CPUS) for task in tasks() - before)
        assert segmenter.cores == "all processors: none of the cores 1000-1001, which the target names, can be used here"


def name_cores(artifact: Path, cores: list[int]) -> None:
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["target"]["core_list"] = cores
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def test_threads_end_with_the_segmenter(tiny_artifact):
    before = tasks()
    segmenter = Segmenter.load(tiny_artifact.directory)
    started = tasks() - before
    assert started
    del segmenter
    wait_for_end_of(started)


def test_all_processors_by_default_and_the_callers_affinity_is_kept(tiny_artifact):
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        assert segmenter.threads == len(CPUS)
    assert usable_cpus() == CPUS


@pytest.mark.parametrize("threads", [0, -1, len(CPUS) + 1])
def test_impossible_thread_counts_are_refused(tiny_artifact, threads: int):
    sentence = f"cannot use {threads} threads; give between 1 and {len(CPUS)}, .* \\(by default {default_threads()}\\)"
    with pytest.raises(UserError, match=sentence):
        Segmenter.load(tiny_artifact.directory, threads=threads)


@pytest.mark.skipif(len(CPUS) < 2, reason="has one processor")
def test_a_quota_is_the_default_and_no_limit(tiny_artifact, monkeypatch: pytest.MonkeyPatch):
    """More threads for a burst are the user's choice: the quota is of time, not of processors."""
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.setattr("enet_tvm.machine.cpu_quota", lambda _root: 1.5)
    for asked, threads in ((None, 1), (2, 2)):
        with Segmenter.load(tiny_artifact.directory, threads=asked) as segmenter:
            assert segmenter.threads == threads
            assert segmenter.forward(random_input(1)).shape == (1, 4, 16, 24)
    with pytest.raises(UserError, match=r"by default 1 of \d+ processors: the CPU quota of 1.5 of its control group"):
        Segmenter.load(tiny_artifact.directory, threads=len(CPUS) + 1)


@pytest.mark.parametrize(("wish", "threads"), [("1", 1), ("1000", len(CPUS))])
def test_threads_of_the_environment(tiny_artifact, monkeypatch: pytest.MonkeyPatch, wish: str, threads: int):
    monkeypatch.setenv("TVM_NUM_THREADS", wish)
    with Segmenter.load(tiny_artifact.directory) as segmenter:
        assert segmenter.threads == threads


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("wish", ["many", "-3", "1000000000"])
def test_a_bad_number_of_threads_in_the_environment_is_a_sentence(tiny_artifact, wish: str):
    """In a process of its own: TVM's runtime is loaded once."""
    program = f"from enet_tvm.runtime import Segmenter; Segmenter.load({str(tiny_artifact.directory)!r}, threads=1)"
    environment = {**os.environ, "TVM_NUM_THREADS": wish}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert result.stderr.splitlines()[-1] == (
        f"enet_tvm.errors.UserError: TVM_NUM_THREADS is '{wish}' and must be a number from 1 to 1024; set it so, or unset it"
    )


def test_calls_from_several_threads_do_not_mix(tiny_artifact, segmenter):
    wrong = []

    def work(seed: int) -> None:
        x = random_input(1, seed)
        for _ in range(20):
            if not np.allclose(segmenter.forward(x), tiny_artifact.reference(x), atol=1e-5):
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_an_artifact_made_again_in_the_same_place(tiny_artifact, tiny_artifact_of_two, tmp_path: Path):
    """The dynamic loader would give back the library it knows by that path."""
    place, x = tmp_path / "artifact", random_input(2)
    for artifact in (tiny_artifact, tiny_artifact_of_two):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(artifact.directory, place)
        with Segmenter.load(place) as segmenter:
            np.testing.assert_allclose(segmenter.forward(x), artifact.reference(x), atol=1e-5)


def test_a_damaged_artifact_is_not_loaded(spoilt_artifact: Path):
    library = spoilt_artifact / "enet.so"
    library.write_bytes(library.read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated or edited"):
        Segmenter.load(spoilt_artifact)


def test_no_torch_and_no_compiler_are_loaded(tiny_artifact):
    program = f"""
import sys
import numpy as np

def check(when):
    modules = {{name.split(".")[0] for name in sys.modules}}
    assert not modules & {{"torch", "tvm", "typer"}}, (when, modules)
    maps = open("/proc/self/maps").read()
    assert "libtvm_compiler" not in maps and "libtorch" not in maps, when

from enet_tvm.runtime import Segmenter
check("imported")
segmenter = Segmenter.load({str(tiny_artifact.directory)!r})
labels = segmenter.segment(np.zeros((9, 7, 3), np.uint8))
check("run")
assert labels.shape == (9, 7)
assert "libtvm_runtime.so" in open("/proc/self/maps").read()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.slow
def test_torch_and_tvm_can_be_used_afterwards(tiny_artifact):
    program = f"""
import numpy as np
from enet_tvm.runtime import Segmenter
segmenter = Segmenter.load({str(tiny_artifact.directory)!r})
x = np.ones((1, 3, 16, 24), np.float32)
before = segmenter.forward(x)

import torch
import tvm
tensor = tvm.runtime.from_dlpack(torch.arange(4.0))
assert tensor.numpy().tolist() == [0, 1, 2, 3]
assert tvm.get_global_func("runtime.NumThreads")() >= 1
assert len({{line.split()[-1] for line in open("/proc/self/maps") if "libtvm_runtime.so" in line}}) == 1
assert (segmenter.forward(x) == before).all()
assert (Segmenter.load({str(tiny_artifact.directory)!r}).forward(torch.ones(1, 3, 16, 24)) == before).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_parts_share_the_threads_and_end_with_the_segmenter(tiny_artifact):
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)
    with Segmenter.load(tiny_artifact.directory, threads=2) as segmenter:
        parts = segmenter.parts()
        assert [part.threads for part in parts] == [1, 1]
        assert segmenter.parts() == parts
        for part in parts:
            np.testing.assert_array_equal(part.forward(x), segmenter.forward(x))
    for part in parts:
        with pytest.raises(UserError, match="was closed"):
            part.forward(x)
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        assert segmenter.parts() == [segmenter]


def test_planes_normalised_into_an_input_that_is_no_longer_needed(tiny_artifact):
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    with Segmenter.load(tiny_artifact.directory, threads=1) as segmenter:
        expected = segmenter.preprocess(picture)
        room = np.full_like(expected, 7)
        assert segmenter.normalise(list(np.moveaxis(picture, -1, 0)), out=room) is room
    np.testing.assert_array_equal(room, expected)
