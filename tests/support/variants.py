"""ENets that are not the paper's."""

from __future__ import annotations

from enet_tvm.networks import ENetVariant

PUBLIC = ENetVariant(
    epsilon=1e-5,
    biases=False,
    initial_pool=3,
    inner_width="input",
    asymmetric_first="vertical",
    normalise_between=True,
    activate_expansion=True,
    slopes="layer",
    upsampling_kernel=2,
    head_kernel=3,
)
"""The ENet of other people's published weights."""
