"""What runs on a device: the segmenter and its pictures. Imports neither PyTorch nor a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enet_tvm.runtime.segmenter import Segmenter

__all__ = ["Segmenter"]


def __getattr__(name: str) -> Any:
    # Late, so that a board that only serves RPC needs neither Pillow nor pydantic for `runtime.libraries`.
    if name == "Segmenter":
        from enet_tvm.runtime.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__} has no attribute {name}")
