"""Runners: one network in one runtime, all called alike, so that any two can be compared."""

from enet_tvm.bench.runners.base import Runner, RunnerMissingError, Workload
from enet_tvm.bench.runners.registry import RUNNERS, open_runner

__all__ = ["RUNNERS", "Runner", "RunnerMissingError", "Workload", "open_runner"]
