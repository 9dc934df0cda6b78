"""Kernels as TensorIR, generated from a few parameters; a file holds one kind: its tile, kernel, weight packing and template.

`cpu` and `gpu` hold those of a device each, and in ``templates.py`` the order in which templates are tried; `common` holds what
both are made with. Compiling searches nothing: the target's registers decide the tile, unless tuning has found a better one.
"""
