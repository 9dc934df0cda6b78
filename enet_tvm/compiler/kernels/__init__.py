"""Kernels as TensorIR, generated from a few parameters; a file has one kind: tile, kernel, how weights lie, and template.

`cpu` and `gpu` hold those of a device each, and in ``templates.py`` the order in which they are asked; `common` holds what
both are made with. Nothing is searched: what the target has of registers decides the tile, unless tuning has found a better.
"""
