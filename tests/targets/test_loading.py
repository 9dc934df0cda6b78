from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.targets import NATIVE, known_targets, load_target, make_target, target_file

GPU = {"arch": "sm_53", "ptx": "6.5", "multiprocessors": 2}
BASE = {"name": "board", "description": "a board", "triple": "aarch64-linux-gnu", "mcpu": "cortex-a53"}
CPUS = ["aarch64-generic", "graviton3", "graviton4", "jetson-orin-cpu", "jetson-tx1-cpu", "rk3588", "rpi3", "rpi4", "rpi5"]
CPUS += ["sapphire-rapids", "x86-64-v2", "x86-64-v3", "x86-64-v4", "zen4"]
GPUS = {
    "gtx-1080": "sm_61",
    "h100": "sm_90",
    "h200": "sm_90",
    "jetson-nano": "sm_53",
    "jetson-orin": "sm_87",
    "jetson-tx1": "sm_53",
    "rtx-2080": "sm_75",
    "rtx-3090": "sm_86",
    "rtx-4090": "sm_89",
}
SHIPPED = sorted([*CPUS, *GPUS])

FILE = """
description = "a board"
triple = "aarch64-linux-gnu"
mcpu = "cortex-a53"
memory = 512
toolchain = "zig"
size = "480x320"
notes = ["Cool it."]

[roofline]
gbps = 3.6
source = "Its data sheet."
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_targets_hold(name: str):
    """LLVM knows the processor, a peak says its source, and the machine's features agree with the architecture."""
    target = load_target(name)
    host = target.to_tvm() if target.gpu is None else target.to_tvm().host
    assert host.attrs["num-cores"] == target.cores
    assert target.name == target.rpc_key == name
    assert target.notes
    assert ("asimd" in target.cpu_features) == (target.architecture == "aarch64")
    if target.roofline is not None:
        assert "not measured" in target.roofline.source


@pytest.mark.parametrize("name", GPUS)
def test_shipped_gpus_hold(name: str):
    """TVM is told every limit: without max_threads_per_block, a target cannot be tuned."""
    target = load_target(name)
    assert target.gpu is not None
    tvm_target, arch = target.to_tvm(), GPUS[name]
    assert (target.gpu.arch, tvm_target.kind.name, tvm_target.attrs["arch"]) == (arch, "cuda", arch)
    for limit in ("max_threads_per_block", "max_shared_memory_per_block", "thread_warp_size", "registers_per_block"):
        assert tvm_target.attrs[limit] > 0
    # A block of the templates has up to 256 threads.
    assert 256 * target.gpu.max_registers <= target.gpu.registers_per_block
    assert target.architecture == ("aarch64" if name.startswith("jetson") else "x86_64")
    assert target.roofline is not None


@pytest.mark.parametrize("name", ["jetson-tx1", "jetson-nano"])
def test_boards_of_jetpack_4(name: str):
    """Their last driver is that of CUDA 10.2."""
    gpu = load_target(name).gpu
    assert gpu is not None
    assert (gpu.ptx, gpu.max_registers) == ("6.5", 128)


def test_all_shipped_targets_are_tested():
    root = Path(__file__).resolve().parents[2]
    assert sorted(path.stem for path in (root / "targets").glob("*.toml")) == SHIPPED


@pytest.mark.parametrize("by_path", [True, False])
def test_users_own_file(here: Path, by_path: bool):
    path = here / "targets" / "mine.toml"
    path.write_text(FILE)
    target = load_target(str(path) if by_path else "mine")
    assert (target.memory, target.toolchain, target.size, target.rpc_key) == (512, "zig", Size(480, 320), "mine")
    assert target.roofline is not None
    assert target.roofline.gbps == 3.6
    assert target.model_dump(mode="json")["size"] == "480x320"
    assert target_file("mine") == known_targets()["mine"] == path


def test_own_file_hides_the_shipped_one(here: Path):
    (here / "targets" / "rpi3.toml").write_text(FILE)
    assert load_target("rpi3").description == "a board"


def test_two_kinds_of_core():
    target = load_target("rk3588")
    assert (target.cores, target.core_list, target.mcpu) == (4, (4, 5, 6, 7), "cortex-a76")
    assert make_target(BASE | {"core_list": [1, 3]}, "f").cores == 2


def test_an_alias(here: Path):
    """It stands for a target under its own name; a file of the alias's name comes first."""
    assert load_target("orange-pi-5") == load_target("rk3588")
    assert load_target("orange-pi-5").rpc_key == "rk3588"
    (here / "targets" / "broken.toml").write_text("mcpu = 3")
    assert load_target("orange-pi-5").name == "rk3588"
    (here / "targets" / "orange-pi-5.toml").write_text(FILE)
    assert load_target("orange-pi-5").description == "a board"


def test_native_has_no_file():
    assert target_file(NATIVE) is None
    assert load_target(NATIVE).rpc_key == NATIVE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cores": "4"}, "cores is '4' and must be a whole number from 1 to 1024"),
        ({"cores": True}, "cores is True"),
        ({"cores": 0}, "cores is 0"),
        ({"core_list": [4, 4]}, "core_list is [4, 4] and must be a list of as many numbers from 0 to 1023 as there are cores"),
        ({"core_list": [4, 5], "cores": 3}, "core_list is [4, 5]"),
        ({"core_list": [-1]}, "core_list is -1"),
        ({"aliases": ["two words"]}, "aliases is 'two words'"),
        ({"corez": 4}, "corez is not a key; known are name, description"),
        ({"memory": 1.5}, "memory is 1.5 and must be a whole number of MB"),
        ({"toolchain": "gcc"}, 'toolchain is \'gcc\' and must be "auto", "system" or "zig"'),
        ({"size": "641x360"}, "size is '641x360' and must be a text"),
        ({"size": [640, 360]}, "size is [640, 360]"),
        ({"size": 640}, "size is 640"),
        ({"rpc_key": "two words"}, "rpc_key is 'two words'"),
        ({"rpc_key": ""}, "rpc_key is ''"),
        ({"mattr": ["dotprod"]}, "mattr is 'dotprod' and must be a list of LLVM features"),
        ({"mattr": "+dotprod"}, "mattr is '+dotprod'"),
        ({"cpu_features": ["a b"]}, "cpu_features is 'a b'"),
        ({"notes": [" "]}, "notes is ' '"),
        ({"triple": "riscv64-linux-gnu"}, 'must be LLVM\'s name of the platform, "x86_64-linux-gnu" or'),
        ({"description": ""}, "description is ''"),
        ({"name": "my board"}, "rename the file"),
        ({"roofline": 3}, "roofline is 3 and must be a section"),
        ({"roofline": {"source": "none"}}, "must be a section with gflops, gbps or both"),
        ({"roofline": {"gflops": 1.0}}, "roofline.source is missing; it must be a sentence"),
        ({"roofline": {"gflops": float("inf"), "source": "hope"}}, "roofline.gflops is inf and must be a number above 0"),
        ({"gpu": 3}, "gpu is 3 and must be a section with arch, ptx and multiprocessors"),
        ({"gpu": {"arch": "sm_53", "ptx": "6.5"}}, "gpu.multiprocessors is missing; it must be a whole number"),
        ({"gpu": GPU | {"arch": "53"}}, "gpu.arch is '53' and must be \"sm_\" and the compute capability"),
        ({"gpu": GPU | {"ptx": 6.5}}, "gpu.ptx is 6.5 and must be the PTX ISA version of the oldest driver"),
        ({"gpu": GPU | {"max_registers": 400}}, "gpu.max_registers is 400 and must be a whole number from 32 to 255"),
        ({"gpu": GPU | {"registers": 400}}, "gpu.registers is not a key; known are gpu.arch, gpu.ptx"),
        ({"roofline": {"tflops": 1, "source": "hope"}}, "roofline.tflops is not a key; known are roofline.gflops"),
    ],
)
def test_errors_name_file_key_and_what_was_expected(change: dict[str, object], words: str):
    with pytest.raises(UserError) as caught:
        make_target(BASE | change, "targets/board.toml")
    message = str(caught.value)
    assert message.startswith("targets/board.toml: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["description", "triple", "mcpu"])
def test_what_is_missing(key: str):
    with pytest.raises(UserError, match=f"^f: {key} is missing; it must be .*; correct it$"):
        make_target({name: value for name, value in BASE.items() if name != key}, "f")


KEYS = [*BASE, "size", "cores", "core_list", "aliases", "notes", "roofline", "rpc_key", "memory", "?"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["gflops", "gbps", "source", "x"]), inner),
    max_leaves=4,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*BASE, "size", "cores", "core_list", "aliases", "notes", "roofline", "rpc_key", "memory", "?"]), VALUES
    )
)
def test_any_content_is_a_target_or_one_error(content: dict[str, object]):
    try:
        target = make_target(BASE | content, "board.toml")
    except UserError:
        return
    assert make_target(target.model_dump(mode="json"), "again") == target


def test_unknown_processor():
    with pytest.raises(UserError, match="LLVM knows no processor 'cortex-a999'"):
        make_target(BASE | {"mcpu": "cortex-a999"}, "f").to_tvm()
