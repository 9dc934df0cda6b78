"""ENet from PyTorch to compiled, tuned modules that a device loads without a compiler."""

from enet_tvm.version import __version__

__all__ = ["__version__"]
