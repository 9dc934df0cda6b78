"""Targets: what a network is compiled for, one TOML file a device."""

from enet_tvm.targets.loading import known_targets, load_target, target_file
from enet_tvm.targets.spec import NATIVE, TargetSpec, make_target

__all__ = ["NATIVE", "TargetSpec", "known_targets", "load_target", "make_target", "target_file"]
