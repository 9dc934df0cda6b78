"""GPUs that kernels are proved for without one: a target of each architecture."""

from __future__ import annotations

GPU_TARGETS = {
    "jetson-tx1": "sm_53",
    "gtx-1080": "sm_61",
    "rtx-2080": "sm_75",
    "rtx-3090": "sm_86",
    "jetson-orin": "sm_87",
    "rtx-4090": "sm_89",
    "h100": "sm_90",
}
"""Architectures by target."""
