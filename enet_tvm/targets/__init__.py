"""Targets: what a network is compiled for, one TOML file a device."""

from enet_tvm.targets.spec import NATIVE, TargetSpec, known_targets, load_target, make_target, target_file

__all__ = ["NATIVE", "TargetSpec", "known_targets", "load_target", "make_target", "target_file"]
