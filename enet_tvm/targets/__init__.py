"""Targets: what a network is compiled for, one TOML file a device."""

from enet_tvm.targets.spec import TargetSpec, known_targets, load_target

__all__ = ["TargetSpec", "known_targets", "load_target"]
