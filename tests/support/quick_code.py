"""Machine code that is made quickly, for what a program computes and not how fast."""

from __future__ import annotations

import tvm


def unoptimised(target: tvm.target.Target) -> tvm.target.Target:
    """Return an LLVM target without LLVM's optimisations, which take most of the time to compile a small program."""
    return tvm.target.Target({**target.export(), "opt-level": 0})
