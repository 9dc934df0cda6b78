"""Runners: one network in one runtime, all called alike, so that any two can be compared."""

from enet_tvm.bench.runners.base import Case, Runner, RunnerMissingError
from enet_tvm.bench.runners.registry import RUNNERS, open_runner

__all__ = ["RUNNERS", "Case", "Runner", "RunnerMissingError", "open_runner"]
