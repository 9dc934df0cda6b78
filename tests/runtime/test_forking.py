"""Segmenters and the processes of whoever loads them. Each test is a program: one that hangs is killed, and fails."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter

START = """
import multiprocessing, os, pickle, signal, sys, threading, time, traceback
import numpy as np
from enet_tvm.errors import UserError
from enet_tvm.runtime import Segmenter

x = np.random.default_rng(0).standard_normal((1, 3, 16, 24)).astype(np.float32)

def fork(work):
    child = os.fork()
    if child:
        return child
    signal.alarm(20)  # a hang is a death
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

def good(*children):
    for child in children:
        assert os.waitpid(child, 0)[1] == 0, "a child failed"

def refused(call, words):
    try:
        call()
    except UserError as error:
        assert words in str(error), error
    else:
        raise AssertionError("it was not refused")
"""


def run(program: str, artifact: Any, timeout: float = 60) -> str:
    """Run a program that finds `directory` and `expected` set, and end it with all of its children if it hangs."""
    lines = f"directory = {str(artifact.directory)!r}\nweights = np.array({artifact.weights.tolist()})\n"
    lines += "expected = np.einsum('oc,nchw->nohw', weights, 2.0 * x)\n"
    lines += "def right(logits):\n    np.testing.assert_allclose(logits, expected, atol=1e-5)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", START + lines + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"it hangs: {said}")
    assert process.returncode == 0, said
    return said


def test_a_forked_child_uses_what_its_parent_loaded(tiny_artifact: Any) -> None:
    """Before and after the parent's first pass, in grandchildren, and on as many threads."""
    run(
        """
segmenter = Segmenter.load(directory)

def work():
    right(segmenter.forward(x))
    assert segmenter.segment(np.zeros((9, 7, 3), np.uint8)).shape == (9, 7)
    assert len(segmenter.run_instrumented(x)) == len(segmenter.time_kernels(x, 2)[0]) == 2
    pools = len(os.listdir("/proc/self/task")) - 1
    assert pools == segmenter.threads, pools

good(fork(work))
right(segmenter.forward(x))
good(fork(work), fork(work))
good(fork(lambda: (right(segmenter.forward(x)), good(fork(work)), right(segmenter.forward(x)))))
right(segmenter.forward(x))
""",
        tiny_artifact,
    )


@pytest.mark.slow
def test_a_child_that_ends_as_programs_end(tiny_artifact: Any) -> None:
    """By the interpreter's own end, with what it has inherited still there, used and unused."""
    run(
        """
segmenter = Segmenter.load(directory)
right(segmenter.forward(x))
for used in (False, True):
    child = os.fork()
    if not child:
        signal.alarm(20)
        if used:
            right(segmenter.forward(x))
        sys.exit(0)
    good(child)
""",
        tiny_artifact,
    )


@pytest.mark.slow
def test_workers_that_were_loaded_before_the_fork(tiny_artifact: Any) -> None:
    """As gunicorn's with --preload: two at once, each with several threads, restarted when they leave."""
    run(
        """
segmenter = Segmenter.load(directory)
right(segmenter.forward(x))

def work():
    threads = [threading.Thread(target=lambda: [right(segmenter.forward(x)) for _ in range(20)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    segmenter.close()
    refused(lambda: segmenter.forward(x), "was closed")

for _ in range(3):
    good(fork(work), fork(work))
right(segmenter.forward(x))
""",
        tiny_artifact,
    )


@pytest.mark.slow
def test_fork_while_other_threads_compute(tiny_artifact: Any) -> None:
    run(
        """
segmenters = [Segmenter.load(directory) for _ in range(2)]
ended, wrong = threading.Event(), []

def compute(segmenter):
    while not ended.is_set():
        try:
            right(segmenter.forward(x))
        except BaseException as error:
            wrong.append(error)
            return

def load():
    while not ended.is_set():
        Segmenter.load(directory).close()

threads = [threading.Thread(target=compute, args=(segmenters[n % 2],)) for n in range(4)] + [threading.Thread(target=load)]
for thread in threads:
    thread.start()

def work():
    for segmenter in segmenters:
        right(segmenter.forward(x))
    with Segmenter.load(directory) as another:
        right(another.forward(x))

def forks():
    for _ in range(5):
        good(fork(work))

# Two threads that fork must not wait for each other.
forkers = [threading.Thread(target=forks) for _ in range(2)]
for thread in forkers:
    thread.start()
for thread in forkers:
    thread.join()
ended.set()
for thread in threads:
    thread.join()
assert not wrong, wrong
""",
        tiny_artifact,
        timeout=100,
    )


def test_fork_during_a_pass_that_does_not_end(tiny_artifact: Any) -> None:
    """The fork does not wait for ever, and the child, whose TVM may be locked, says so at once."""
    run(
        """
from enet_tvm.runtime import forking
forking.PATIENCE = 0.3
segmenter = Segmenter.load(directory)
gate, go_on = forking.not_while_forking, threading.Event()
entered = threading.Event()
stuck = threading.Thread(target=lambda: segmenter._engine._do(lambda: (entered.set(), go_on.wait())))
stuck.start()
entered.wait()
good(fork(lambda: refused(lambda: segmenter.forward(x), "spawn")))
go_on.set()
stuck.join()
good(fork(lambda: right(segmenter.forward(x))))
""",
        tiny_artifact,
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(tiny_artifact: Any, tmp_path: Path, method: str) -> None:
    """With the segmenter as a global that a fork inherits, and as an argument, which a spawned process loads again."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import multiprocessing, sys
import numpy as np
from enet_tvm.runtime import Segmenter

def work(segmenter, x):
    return segmenter.forward(x), segmenter.threads

def loads_itself(x):
    with Segmenter.load({str(tiny_artifact.directory)!r}, threads=1) as own:
        return own.forward(x)

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    segmenter = Segmenter.load({str(tiny_artifact.directory)!r}, threads=1)
    x = np.ones((1, 3, 16, 24), np.float32)
    expected = segmenter.forward(x)
    with multiprocessing.Pool(2) as pool:
        for logits, threads in pool.starmap_async(work, [(segmenter, x)] * 4).get(60):
            assert (logits == expected).all() and threads == 1
        for logits in pool.map_async(loads_itself, [x] * 2).get(60):
            assert (logits == expected).all()
""")
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)


@pytest.mark.slow
def test_in_workers_of_a_data_loader(tiny_artifact: Any) -> None:
    run(
        """
import torch
from torch.utils.data import DataLoader, Dataset

class Labelled(Dataset):
    def __init__(self, segmenter):
        self.segmenter = segmenter
    def __len__(self):
        return 6
    def __getitem__(self, number):
        return torch.from_numpy(self.segmenter.segment(np.full((16, 24, 3), number, np.uint8)).copy())

data = Labelled(Segmenter.load(directory, threads=1))
alone = [data[number] for number in range(6)]
for _ in range(2):
    loader = DataLoader(data, batch_size=None, num_workers=2, timeout=20, multiprocessing_context="fork")
    assert all((a == b).all() for a, b in zip(alone, loader, strict=True))
""",
        tiny_artifact,
        timeout=120,
    )


def test_a_gpu_is_not_used_after_a_fork(tiny_artifact: Any) -> None:
    """Nothing of a GPU's survives; the processor's memory stands for its."""
    run(
        """
from enet_tvm.runtime import gpu
from enet_tvm.runtime.gpu import DeviceMemory, load_cuda
segmenter = Segmenter.load(directory)
segmenter._engine._memory = DeviceMemory(segmenter._engine._ffi, "cpu")
right(segmenter.forward(x))
gpu._opened_by = os.getpid()

def work():
    refused(lambda: segmenter.forward(x), "spawn")
    refused(lambda: segmenter.segment(np.zeros((9, 7, 3), np.uint8)), "spawn")
    refused(lambda: load_cuda(segmenter._engine._ffi), "had opened the GPU")
    segmenter.close()

good(fork(work))
right(segmenter.forward(x))
""",
        tiny_artifact,
    )


def test_a_pickle_is_loaded_again(tiny_artifact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_artifact.directory.parent)
    x = np.ones((1, 3, 16, 24), np.float32)
    with Segmenter.load(tiny_artifact.directory.name, threads=1) as segmenter:
        content, expected = pickle.dumps(segmenter), segmenter.forward(x)
    monkeypatch.chdir(tmp_path)
    with pickle.loads(content) as again:
        assert type(again) is Segmenter
        assert again.threads == 1
        assert again.manifest == segmenter.manifest
        np.testing.assert_array_equal(again.forward(x), expected)


def test_a_pickle_of_another_artifact_is_refused(tiny_artifact: Any, tiny_artifact_of_two: Any, spoilt_artifact: Path) -> None:
    with Segmenter.load(spoilt_artifact) as segmenter:
        content = pickle.dumps(segmenter)
    library = spoilt_artifact / "enet.so"
    truncated = library.read_bytes()[:-1]
    library.unlink()  # written in place it would lose the pages that this process has mapped, and crash it at its end
    library.write_bytes(truncated)
    with pytest.raises(UserError, match="truncated or edited"):
        pickle.loads(content)
    shutil.rmtree(spoilt_artifact)
    with pytest.raises(UserError, match=str(spoilt_artifact)):
        pickle.loads(content)
    shutil.copytree(tiny_artifact_of_two.directory, spoilt_artifact)
    with pytest.raises(UserError, match="compiled again since"):
        pickle.loads(content)


def test_closing_while_other_threads_compute(tiny_artifact: Any) -> None:
    """What was asked for before is answered, what comes after is refused, and nobody waits for ever."""
    x = np.ones((1, 3, 16, 24), np.float32)
    segmenter = Segmenter.load(tiny_artifact.directory)
    expected = segmenter.forward(x)
    said: list[object] = []

    def compute() -> None:
        while True:
            try:
                np.testing.assert_array_equal(segmenter.forward(x), expected)
            except Exception as error:
                said.append(error)
                return

    threads = [threading.Thread(target=compute, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    closers = [threading.Thread(target=segmenter.close, daemon=True) for _ in range(2)]
    for thread in closers:
        thread.start()
    for thread in [*threads, *closers]:
        thread.join(10)
        assert not thread.is_alive(), "it hangs"
    assert [type(error) for error in said] == [UserError] * 4
    assert all("was closed" in str(error) for error in said)


def test_calls_after_close_are_refused(tiny_artifact: Any) -> None:
    x = np.ones((1, 3, 16, 24), np.float32)
    segmenter = Segmenter.load(tiny_artifact.directory)
    segmenter.close()
    segmenter.close()
    for call in (
        segmenter.forward,
        segmenter.forward_timed,
        segmenter.run_instrumented,
        lambda x: segmenter.time_kernels(x, 1),
    ):
        with pytest.raises(UserError, match="was closed; load the artifact again"):
            call(x)


@pytest.mark.slow
def test_a_signal_that_closes(tiny_artifact: Any) -> None:
    """As a service does on SIGTERM, in the middle of a call of the same thread: wherever it is just then."""
    run(
        """
def forever():
    while True:
        right(segmenter.forward(x))

for number in range(40):
    segmenter = Segmenter.load(directory)
    signal.signal(signal.SIGALRM, lambda *_: segmenter.close())
    signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.0013 * number)
    refused(forever, "was closed")
    assert not segmenter._engine._thread
""",
        tiny_artifact,
    )


def test_a_pass_when_python_ends_is_refused(tiny_artifact: Any) -> None:
    run(
        """
import atexit
def last():
    refused(lambda: segmenter.forward(x), "Python is ending")
    print("refused")
atexit.register(last)
segmenter = Segmenter.load(directory)
right(segmenter.forward(x))
""",
        tiny_artifact,
    )
