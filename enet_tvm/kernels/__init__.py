"""CPU kernels as TensorIR, generated from a few parameters: one register tile for every convolution of the network.

Each module builds ``PrimFunc`` s for one operator of the `enet` dialect. Nothing is searched: the register file
that the target has decides the tile (`register_tile`), and rows of the picture go to the cores.
"""
