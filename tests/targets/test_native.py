from __future__ import annotations

import pytest

from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, cpu_features, usable_cpus
from enet_tvm.targets import NATIVE, load_target, native

x86 = pytest.mark.skipif(architecture() != "x86_64", reason="of x86-64 extensions")


def test_it_is_this_machine():
    target = load_target(NATIVE)
    assert target.name == NATIVE
    assert target.architecture == architecture()
    assert target.cores == len(usable_cpus())
    assert set(target.cpu_features) <= cpu_features()
    assert int(target.to_tvm().attrs["num-cores"]) == target.cores


@x86
def test_what_vectors_need_is_required():
    """Code for vectors of some width is only loaded where the kernel says that they work."""
    target = load_target(NATIVE)
    required = {4: "sse2", 8: "avx", 16: "avx512f"}[VectorUnit.of(target.to_tvm()).lanes]
    assert required in {*target.cpu_features, "sse2"}


@x86
@pytest.mark.parametrize(("hidden", "lanes"), [("avx512", 8), ("avx", 4)])
def test_extensions_that_a_virtual_machine_hides(monkeypatch: pytest.MonkeyPatch, hidden: str, lanes: int):
    """LLVM asks the processor, which has them; the system, which would have to save their registers, does not know them."""
    reported = frozenset(name for name in cpu_features() if not name.startswith((hidden, "fma", "f16c")))
    monkeypatch.setattr(native, "cpu_features", lambda: reported)
    target = load_target(NATIVE)
    assert not [name for name in target.cpu_features if name.startswith(hidden)]
    assert set(target.cpu_features) <= reported
    assert VectorUnit.of(target.to_tvm()).lanes <= lanes


@x86
def test_nothing_is_switched_off_that_is_there():
    switched_off = {name.removeprefix("-") for name in load_target(NATIVE).mattr}
    known = {llvm: name for llvm, name in native.CPUINFO_NAMES.items() if name in cpu_features()}
    assert not switched_off & set(known)


def test_a_machine_that_is_not_supported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "architecture", lambda: "riscv64")
    with pytest.raises(UserError, match="does not know riscv64"):
        load_target(NATIVE)
