"""Kernels of GPUs: plain NCHW tensors, a tile of pixels and channels in the registers of each thread."""
