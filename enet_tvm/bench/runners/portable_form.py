"""The network in portable form, from which the files of embedded runtimes are made."""

from __future__ import annotations

from pathlib import Path

from enet_tvm.bench.runners.base import Case


def exported(case: Case) -> Path:
    """Return the ONNX file of a case's network in portable form, written once."""
    path = case.directory / f"{case.size}-portable.onnx"
    if not path.is_file():
        # Imported here: a process that only runs what is made of the file is to hold no PyTorch.
        from enet_tvm.compiler.frontend.onnx_export import export_onnx
        from enet_tvm.networks import load_network, read_info

        export_onnx(load_network(case.weights), read_info(case.weights), case.size, path, form="portable")
    return path
