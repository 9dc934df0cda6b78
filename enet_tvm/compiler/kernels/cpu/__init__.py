"""Kernels of CPUs: channel-blocked tensors, one register tile for every convolution, rows of the picture on the cores."""
