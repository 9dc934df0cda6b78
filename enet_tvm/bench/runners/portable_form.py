"""The network in portable form, from which the files of embedded runtimes are made."""

from __future__ import annotations

from pathlib import Path

from enet_tvm.artifact import Precision
from enet_tvm.bench.runners.base import Case
from enet_tvm.files import atomic_file


def exported(case: Case, precision: Precision = "float32") -> Path:
    """Return the ONNX file of a case's network in portable form, written once.

    Its numbers are of float32 in any case; for a runtime that computes in float16 none is larger than that has.
    """
    # Imported here: a process that only runs what is made of the file is to hold no PyTorch.
    if precision == "float16":
        path = case.directory / f"{case.size}-portable-float16.onnx"
        if not path.is_file():
            import onnx

            from enet_tvm.compiler.frontend.onnx_export import OPSETS, to_model
            from enet_tvm.networks import load_network
            from enet_tvm.networks.portable import LARGE_FLOAT16, portable

            network = portable(load_network(case.weights).eval(), LARGE_FLOAT16)
            with atomic_file(path) as temporary:
                onnx.save(to_model(network, case.size, OPSETS[0]), temporary)
        return path
    path = case.directory / f"{case.size}-portable.onnx"
    if not path.is_file():
        from enet_tvm.compiler.frontend.onnx_export import export_onnx
        from enet_tvm.networks import load_network, read_info

        export_onnx(load_network(case.weights), read_info(case.weights), case.size, path, form="portable")
    return path
