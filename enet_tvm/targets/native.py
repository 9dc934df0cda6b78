"""The machine this runs on, as a target."""

from __future__ import annotations

import tvm

from enet_tvm.errors import UserError
from enet_tvm.machine import architecture, cpu_features, default_threads
from enet_tvm.targets.spec import NATIVE, TargetSpec

CPUINFO_NAMES = {
    "sse3": "pni",
    "ssse3": "ssse3",
    "sse4.1": "sse4_1",
    "sse4.2": "sse4_2",
    "popcnt": "popcnt",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "bmi": "bmi1",
    "bmi2": "bmi2",
    "lzcnt": "abm",
    "movbe": "movbe",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16",
    "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni",
    "amx-tile": "amx_tile",
    "amx-int8": "amx_int8",
    "amx-bf16": "amx_bf16",
}
"""LLVM's name of each extension that code generation may use, and the kernel's, where they matter to numeric code."""


def native_target() -> TargetSpec:
    """Return this machine as a target: LLVM's name of its processor, less the extensions the kernel does not report.

    A virtual machine often hides some of its processor's extensions; code that used them would be killed.

    Raises
    ------
    UserError
        When the machine is neither x86-64 nor 64-bit ARM.
    """
    machine = architecture()
    if machine not in ("x86_64", "aarch64"):
        raise UserError(f"--target native does not know {machine} processors; name a target")
    triple, mcpu = f"{machine}-linux-gnu", str(tvm.target.codegen.llvm_get_system_cpu())
    reported = cpu_features()
    required: list[str] = []
    missing: list[str] = []
    if machine == "x86_64":
        target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": mcpu})
        used = {str(name) for name in tvm.target.codegen.llvm_get_cpu_features(target)}
        for llvm_name, name in CPUINFO_NAMES.items():
            if llvm_name in used and name in reported:
                required.append(name)
            elif llvm_name in used:
                missing.append(f"-{llvm_name}")
    return TargetSpec(
        name=NATIVE,
        description="this machine",
        triple=triple,
        mcpu=mcpu,
        mattr=tuple(missing),
        cpu_features=tuple(required),
        cores=default_threads().threads,
    )
