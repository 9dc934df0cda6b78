"""`benchmarks/arm.py`: kinds of instructions, loops among executed blocks, and a forward pass on the emulated device."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled import shipped_enet, small_network
from scripts import load_script, run_script
from typer.testing import Result

from enet_tvm.compiler.arm import instructions

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# As LLVM's assembler encodes them.
WORDS = {
    "fma": {
        "fmla v0.4s, v1.4s, v2.4s": 0x4E22CC20,
        "fmls v0.4s, v1.4s, v2.4s": 0x4EA2CC20,
        "fmla v0.4s, v1.4s, v2.s[3]": 0x4FA21820,
        "fmls v0.4s, v1.4s, v2.s[3]": 0x4FA25820,
        "fmla v0.8h, v1.8h, v2.8h": 0x4E420C20,
        "fmla v0.8h, v1.8h, v2.h[5]": 0x4F121820,
        "fmadd s0, s1, s2, s3": 0x1F020C20,
        "sdot v0.4s, v1.16b, v2.16b": 0x4E829420,
        "sdot v0.4s, v1.16b, v2.4b[1]": 0x4FA2E020,
        "bfdot v0.4s, v1.8h, v2.8h": 0x6E42FC20,
        "bfdot v0.4s, v1.8h, v2.2h[1]": 0x4F62F020,
        "bfmmla v0.4s, v1.8h, v2.8h": 0x6E42EC20,
        "smmla v0.4s, v1.16b, v2.16b": 0x4E82A420,
    },
    "load": {
        "ldr q0, [x1, #16]": 0x3DC00420,
        "ldr x0, [x1]": 0xF9400020,
        "ldrsw x0, [x1]": 0xB9800020,
        "ldp q0, q1, [x2]": 0xAD400440,
        "ld1 {v0.4s}, [x1]": 0x4C407820,
        "ld1r {v0.4s}, [x1]": 0x4D40C820,
        "ldur q0, [x1, #-4]": 0x3CDFC020,
        "ldxr x0, [x1]": 0xC85F7C20,
        "ldr x0, 8 on": 0x58000040,
    },
    "store": {
        "str q0, [x1]": 0x3D800020,
        "stp q0, q1, [x2]": 0xAD000440,
        "st1 {v0.4s}, [x1]": 0x4C007820,
        "str w0, [x1]": 0xB9000020,
        "strb w0, [x1]": 0x39000020,
    },
    "other": {
        "fmul v0.4s, v1.4s, v2.4s": 0x6E22DC20,
        "fadd v0.4s, v1.4s, v2.4s": 0x4E22D420,
        "fmul v0.4s, v1.4s, v2.s[0]": 0x4F829020,
        "movi v0.2d, #0": 0x6F00E400,
        "prfm pldl1keep, [x1]": 0xF9800020,
        "add x0, x1, x2": 0x8B020020,
        "b.ne 4 back": 0x54FFFFE1,
        "madd x0, x1, x2, x3": 0x9B020C20,
    },
}
ADD, BACK_2, BACK_3, LEAVE = 0x8B020020, 0x54FFFFC1, 0x54FFFFA1, 0x54000101


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in WORDS.items() for text in texts])
def test_kinds(kind: str, text: str):
    assert instructions.kind(WORDS[kind][text]) == kind


def test_what_was_executed():
    fma, load = WORDS["fma"]["fmla v0.4s, v1.4s, v2.4s"], WORDS["load"]["ldr x0, [x1]"]
    blocks = [instructions.Block(3, 0, (fma, fma, load)), instructions.Block(5, 64, (fma,))]
    assert instructions.count_kinds(blocks) == {"fma": 11, "load": 3}


def test_loops_are_those_of_one_pass():
    """A loop that was cut in two is put together, wherever it is; one of the start cancels."""
    block = instructions.Block

    def run(passes: int, at: int) -> list[Any]:
        start = [block(1000, at + 512, (ADD, BACK_2 + 32))]
        # Three instructions, in blocks of one and two; the first is entered from before as well.
        return [*start, block(10 * passes + 1, at, (ADD,)), block(10 * passes, at + 4, (ADD, BACK_2))]

    assert instructions.hot_loops(run(1, 0x1000), run(2, 0x9000)) == [instructions.Loop(10, (ADD, ADD, BACK_2))]


def test_what_is_no_innermost_loop():
    block = instructions.Block
    outer = [block(10, 0, (ADD,)), block(500, 4, (ADD,)), block(10, 8, (ADD, BACK_3))]
    branches = [block(10, 0, (ADD, LEAVE)), block(10, 8, (ADD, 0x54FFFFA1))]
    forward = [block(10, 0, (ADD, LEAVE))]
    for blocks in (branches, forward):
        assert instructions.hot_loops([], blocks) == []
    # A block inside that is executed more often is still one after the other.
    assert [loop.iterations for loop in instructions.hot_loops([], outer)] == [10]


@pytest.fixture(scope="module")
def count() -> Callable[..., Result]:
    """Runs the command line in this process, which has imported PyTorch and TVM."""
    script = load_script(BENCHMARKS / "arm.py")
    return lambda *options: run_script(script, *options)


@pytest.mark.emulated
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_forward_pass(count: Callable[..., Result], tmp_path: Path):
    """Counts are the same from run to run, and the network's labels are PyTorch's, Winograd's kernels among its own."""
    artifact = shipped_enet("rpi4")
    assert b"_winograd" in (artifact / "enet.so").read_bytes()
    options = ["--artifact", str(artifact), "--loops", "1", "--json"]
    command = [sys.executable, str(BENCHMARKS / "arm.py"), *options, str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 2:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "cortex-a72" in done.stdout
    assert count(*options, str(tmp_path / "b.json")).exit_code == 0
    found = [json.loads((tmp_path / name).read_text())["results"][0] for name in ("a.json", "b.json")]
    ours, again = (result["entries"]["ours"] for result in found)
    assert ours["labels"] > 0.9999
    assert ours["instructions"] == sum(ours["kinds"].values())
    # What the runner says and how long the clock took is a part in ten thousand.
    assert again["instructions"] == pytest.approx(ours["instructions"], rel=1e-3)
    assert 4e6 < ours["instructions"] < 9e6
    assert ours["kinds"]["fma"] > 0.5 * ours["instructions"]
    (loop,) = found[0]["loops"]
    assert loop["kinds"]["fma"] >= 0.7 * loop["instructions"]
    model = loop["models"]["cortex-a72"]
    assert model["cycles"] >= loop["kinds"]["fma"] * 0.99
    assert model["busy"] > 0.8
    kernels = found[0]["kernels"]
    assert {"initial_block", "conv2d_1x1_64to16_16x12_prelu", "max_pool2d_with_window"} <= {
        kernel["name"] for kernel in kernels
    }
    assert any(kernel["name"].endswith("_winograd") for kernel in kernels)
    assert 0.9 * ours["instructions"] < sum(kernel["instructions"] for kernel in kernels) < ours["instructions"]
    for kernel in kernels:
        assert kernel["instructions"] == sum(kernel["kinds"].values())
        if "conv2d_1x1" in kernel["name"] and kernel["instructions"] > 0.02 * ours["instructions"]:
            assert kernel["hottest"]["model"] == "cortex-a72"
            assert kernel["hottest"]["busy"] > 0.8
            assert kernel["hottest"]["kinds"]["fma"] > 0.7 * kernel["hottest"]["instructions"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--peer", "mmm"], "no peer is called 'mmm'; there are ncnn, mnn, litert, executorch, onnxruntime, and all of them"),
        (["--target", "zen4"], "zen4 is no 64-bit ARM processor; 'enet-tvm targets' lists those, such as rpi4"),
        (
            ["--artifact", "here", "--size", "64x48"],
            "--artifact says for which target, size and data type it is; leave --target, --size and --dtype out",
        ),
        (
            ["--artifact", "here", "--dtype", "float32"],
            "--artifact says for which target, size and data type it is; leave --target, --size and --dtype out",
        ),
        (["--dtype", "half"], "no data type is called 'half'; there are float32, float16, bfloat16, int8"),
        (["--dtype", "int8", "--peer", "ncnn"], "ncnn does not compute in int8; leave --peer ncnn out"),
        (
            ["--target", "rpi4", "--dtype", "float16", "--dtype", "bfloat16"],
            "no target computes in float16 or bfloat16; leave one of them out",
        ),
    ],
)
def test_what_cannot_be_counted(count: Callable[..., Result], options: list[str], sentence: str):
    result = count(*options)
    assert (result.exit_code, result.stderr.strip()) == (2, f"error: {sentence}")


def test_an_artifact_of_other_weights_is_refused(count: Callable[..., Result]):
    artifact = small_network()
    result = count("--artifact", str(artifact))
    sentence = f"error: {artifact} is of other weights than those shipped, whose labels it would be compared with"
    assert (result.exit_code, result.stderr.strip()) == (2, sentence)
