"""What holds for the whole suite: who has the machine alone, what counts as slow, and that no worker crashes at its end."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from effort import Effort, effort, shared_work
from shared import close_run, machine, open_run

LIMIT = 10.0
"""Seconds of a test that is not marked slow."""

MODULE = 0.01
"""Seconds that loading one of PyTorch's or TVM's thousands of Python modules takes, which the first test pays for all."""

MANY_MODULES = 100
"""So many new modules are worth telling the garbage collector to leave alone what they hold."""

_BEFORE = pytest.StashKey[tuple[Effort, int]]()
_TESTS_RUN_SIDE_BY_SIDE = "PYTEST_XDIST_WORKER"


def _mark_other_cases(items: list[pytest.Item]) -> None:
    """Mark as slow all but a few cases of each function with the mark ``quick_cases``, which says how many; they lie apart."""
    cases: dict[tuple[Path, str], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("quick_cases") and not item.get_closest_marker("slow"):
            cases[item.path, item.nodeid.partition("[")[0]].append(item)
    for group in cases.values():
        mark = group[0].get_closest_marker("quick_cases")
        count = mark.args[0] if mark else len(group)
        quick = {place * len(group) // count for place in range(count)}
        for number, item in enumerate(group):
            if number not in quick:
                item.add_marker(pytest.mark.slow)


class _Backwards(pytest.Dir):
    """A folder whose entries are collected from the last one on."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        return reversed(list(super().collect()))


class Suite:
    """The plugin, registered by ``tests/conftest.py``."""

    def __init__(self) -> None:
        self._folder: Path | None = open_run()
        self._workers: list[Any] = []
        self._crashed: list[str] = []
        self._settled = 0

    def pytest_unconfigure(self) -> None:
        """Remove what the run's processes shared."""
        if self._folder is not None:
            close_run(self._folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Look for no garbage meanwhile: there is none among ever more modules and items."""
        gc.disable()
        try:
            return (yield)
        finally:
            gc.enable()

    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        """Let every second worker begin with the last files: in a fresh clone each then rewrites the asserts of half of them.

        What one has rewritten, the other reads.
        """
        number = int(os.environ.get(_TESTS_RUN_SIDE_BY_SIDE, "gw0").removeprefix("gw"))
        return _Backwards.from_parent(parent, path=path) if number % 2 else None

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, object, object]:
        """Mark what `quick_cases` leaves out, before tests are chosen by their marks; then begin with the files of the longest.

        So no worker is left alone with one of those at the end. One of them compiles the network that most share; the others
        have files that do without it until then.
        """
        items.sort(key=lambda item: item.path.parts)  # the same in all workers, wherever they began
        _mark_other_cases(items)
        result = yield
        long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("alone")}
        sharing = {item.path for item in items if "compiled_enet" in getattr(item, "fixturenames", ())}
        first = min(sharing, default=None)
        items.sort(key=lambda item: (item.path not in long, item.path != first, item.path in sharing))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Give the machine to one test alone, or to those that can share it; the waiting is outside a test's timeout."""
        self._settle()
        if _TESTS_RUN_SIDE_BY_SIDE not in os.environ:
            return (yield)
        with machine(alone=item.get_closest_marker("alone") is not None):
            return (yield)

    def _settle(self) -> None:
        """Take what modules hold out of the garbage collector's sight, which else takes a third of a second each time."""
        if len(sys.modules) - self._settled >= MANY_MODULES:
            gc.collect()
            gc.freeze()
            self._settled = len(sys.modules)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        """Charge no test for what others use as well."""
        if fixturedef.scope == "function":
            return (yield)
        with shared_work():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin to count what only this test needs."""
        item.stash[_BEFORE] = effort(), len(sys.modules)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test that is slow and not marked so."""
        result = yield
        before, modules = item.stash[_BEFORE]
        spent = effort() - before
        seconds = spent.seconds - MODULE * (len(sys.modules) - modules)
        # A whole run is not the loop that is to stay short: a margin, so that noise of the machine does not fail it.
        limit = LIMIT if item.config.getoption("markexpr") else 2 * LIMIT
        if seconds > limit and item.get_closest_marker("slow") is None:
            pytest.fail(
                f"this test took {spent.passed:.0f} s and {spent.worked:.0f} s of work, and more than {limit:.0f} s of both is "
                "slow: make it faster, or mark it with pytest.mark.slow, which `make test` leaves out",
                pytrace=False,
            )
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: Any) -> None:
        """Remember a worker's process."""
        self._workers.append(node.gateway)

    @pytest.hookimpl(wrapper=True, trylast=True)  # before the summary, which tells it
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Fail the run where a worker crashed once its tests had passed, as a process of its own would."""
        result = yield  # xdist ends its workers and waits for them
        codes = [(worker.id, worker._io.popen.returncode) for worker in self._workers]
        # xdist kills a worker that takes long to end.
        self._crashed = [f"worker {name} ended with code {code}" for name, code in codes if code and code != -signal.SIGKILL]
        if self._crashed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say so."""
        for sentence in self._crashed:
            terminalreporter.write_line(f"ERROR: {sentence}, after its last test", red=True)
