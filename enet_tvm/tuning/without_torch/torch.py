"""No PyTorch: in front of it on the path of a process, this file has TVM start without it, as `lean_workers` says."""

raise ImportError("PyTorch is hidden from workers that build or time kernels")
