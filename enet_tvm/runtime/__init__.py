"""What runs on a device: the segmenter and its pictures. Imports neither PyTorch nor a compiler."""

from enet_tvm.runtime.segmenter import Segmenter

__all__ = ["Segmenter"]
