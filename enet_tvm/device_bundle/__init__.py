"""Bundles for boards: TVM's runtime, a runner, an RPC server, and how to start them, in one file.

The programs for boards without Python, and the library that stands in for NVIDIA's runtime on boards whose driver is too old
for it, are C sources beside this package (`csrc`), compiled for the board by Zig's compiler.
"""

from __future__ import annotations

from enet_tvm.device_bundle.bundle import BundleManifest, BundleRequest, write_bundle

__all__ = ["BundleManifest", "BundleRequest", "write_bundle"]
