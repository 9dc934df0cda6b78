"""A stream: items through stages that work side by side, on threads of their own, with bounded queues between them.

Throughput is that of the slowest stage. No more than a few items wait in front of each, so latency and memory are bounded. A
recorded source waits until there is room and loses nothing; a live one goes on, and what nobody took in time is dropped.
"""

from __future__ import annotations

import collections
import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")

SOURCE = "source"
"""Name of the source in the statistics, for the time that it takes for an item."""
_KEPT_TIMES = 4096
"""Number of times that a stage remembers for its percentiles: two minutes at 30 frames a second."""


@dataclass(frozen=True)
class Stage:
    """One step of a stream.

    Attributes
    ----------
    name : str
        Name of the stage in the statistics.
    work : callable or sequence of callable
        Takes an item of the stage before and returns this stage's. It is called from one thread, in order. Several work on
        several items at a time, each from a thread of its own; their results go on in order all the same.
    """

    name: str
    work: Callable[[Any], Any] | Sequence[Callable[[Any], Any]]

    @property
    def workers(self) -> Sequence[Callable[[Any], Any]]:
        """Return the callables that work side by side."""
        return (self.work,) if callable(self.work) else self.work


@dataclass(frozen=True)
class StageTimes:
    """How long a stage worked on an item, in milliseconds, without its waiting: median and 99th percentile."""

    p50: float
    p99: float


@dataclass(frozen=True)
class StreamStatistics:
    """What a stream did so far.

    Attributes
    ----------
    items : int
        Number of items that came out.
    dropped : int
        Number of items of a live source that nothing was free to take.
    seconds : float
        Seconds from the start of the stream to the last item that came out.
    stages : dict of str to StageTimes
        Times of the source and of every stage, in order.
    latency : StageTimes
        Time from the moment the source gave an item until it came out, in milliseconds.
    """

    items: int
    dropped: int
    seconds: float
    stages: dict[str, StageTimes]
    latency: StageTimes

    @property
    def rate(self) -> float:
        """Items a second, end to end; 0 before the first."""
        return self.items / self.seconds if self.seconds > 0 else 0.0


class Stream(Generic[Item]):
    """Items of a source after all stages, in order.

    Iterate over it once; leaving a ``with`` block, `close`, or an error in any stage ends all threads. What a stage or the
    source raises is raised from the iteration, after the items before it.

    Parameters
    ----------
    source : iterable
        Source of the items; it is iterated on a thread of its own, and its iterator closed there if it can be.
    stages : sequence of Stage
        Stages that each item goes through, at least one.
    live : bool
        Whether the source does not wait, as a camera: then an item that a stage has not taken when `depth` newer ones are there
        is dropped, oldest first. What comes out is then hardly older than its way through the stages.
    depth : int
        Largest number of items that wait in front of a stage.
    """

    def __init__(self, source: Iterable[Any], stages: Sequence[Stage], *, live: bool = False, depth: int = 2) -> None:
        if depth < 1 or not stages:
            raise ValueError("a stream needs a stage, and room for an item in front of it")
        self._times = {name: _Times() for name in (SOURCE, *(stage.name for stage in stages))}
        self._latency = _Times()
        self._queues = [_Queue(depth, lossy=live and place < len(stages)) for place in range(len(stages) + 1)]
        self._items = 0
        self._started = time.perf_counter()
        self._last = self._started
        self.last_latency = 0.0
        """Seconds from the moment the source gave the item that came out last until it came out."""
        self._threads = [threading.Thread(target=self._feed, args=(source,), name="enet-tvm-source", daemon=True)]
        for place, stage in enumerate(stages):
            turns = _Turns(len(stage.workers))
            for work in stage.workers:
                arguments = (stage.name, work, place, turns)
                self._threads.append(
                    threading.Thread(target=self._serve, args=arguments, name=f"enet-tvm-{stage.name}", daemon=True)
                )
        for thread in self._threads:
            thread.start()

    def _feed(self, source: Iterable[Any]) -> None:
        times, queue = self._times[SOURCE], self._queues[0]
        end = _End()
        iterator = None
        try:
            iterator = iter(source)
            while True:
                before = time.perf_counter()
                try:
                    value = next(iterator)
                except StopIteration:
                    break
                now = time.perf_counter()
                times.add(now - before)
                queue.put(_Entry(value, now))
        except _ClosedError:
            return
        except BaseException as error:  # it belongs to whoever iterates over the stream
            end = _End(error)
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                close()
        queue.finish(end)

    def _serve(self, name: str, work: Callable[[Any], Any], place: int, turns: _Turns) -> None:
        queue, following, times = self._queues[place], self._queues[place + 1], self._times[name]
        try:
            while not isinstance(entry := queue.get(), _End):
                error = value = None
                before = time.perf_counter()
                try:
                    value = work(entry.value)
                except BaseException as raised:  # it belongs to whoever iterates over the stream, after the items before it
                    error = raised
                times.add(time.perf_counter() - before)
                with turns.of(entry.number):
                    if error is not None:
                        turns.close()
                        for before_it in self._queues[: place + 1]:
                            before_it.close()
                        following.finish(_End(error))
                        return
                    following.put(_Entry(value, entry.born))
            if turns.last_to_leave():
                following.finish(entry)
        except _ClosedError:
            turns.close()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        try:
            entry = self._queues[-1].get()
        except _ClosedError:
            raise StopIteration from None
        if isinstance(entry, _End):
            self.close()
            if entry.error is not None:
                raise entry.error
            raise StopIteration
        self._last = time.perf_counter()
        self.last_latency = self._last - entry.born
        self._latency.add(self.last_latency)
        self._items += 1
        value: Item = entry.value
        return value

    @property
    def dropped(self) -> int:
        """Number of items of a live source that were dropped so far."""
        return sum(queue.dropped for queue in self._queues)

    def statistics(self) -> StreamStatistics:
        """Return the statistics of the stream so far; may be called from any thread, also after its end."""
        return StreamStatistics(
            items=self._items,
            dropped=self.dropped,
            seconds=self._last - self._started,
            stages={name: times.summary() for name, times in self._times.items()},
            latency=self._latency.summary(),
        )

    def close(self) -> None:
        """End the stream: stages finish the item they are at, what waits is forgotten. Waits for the stages, not the source.

        A live source may wait for its next item as long as it likes; its thread ends after that.
        """
        for queue in self._queues:
            queue.close()
        for thread in self._threads[1:]:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _ClosedError(Exception):
    """The queue was closed."""


@dataclass(frozen=True)
class _Entry:
    value: Any
    born: float
    number: int = -1
    """Number among the entries taken from its queue, from 0; -1 before it is taken."""


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


@dataclass
class _Queue:
    """At most `depth` entries; `put` waits for room, or pushes out the oldest of a lossy queue."""

    depth: int
    lossy: bool
    dropped: int = 0
    _taken: int = 0
    _entries: collections.deque[_Entry] = field(default_factory=collections.deque)
    _end: _End | None = None
    _closed: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, entry: _Entry) -> None:
        with self._changed:
            if self.lossy and len(self._entries) >= self.depth:
                self._entries.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: self._closed or len(self._entries) < self.depth)
            if self._closed:
                raise _ClosedError
            self._entries.append(entry)
            self._changed.notify_all()

    def finish(self, end: _End) -> None:
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def get(self) -> _Entry | _End:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._entries or self._end is not None)
            if self._closed:
                raise _ClosedError
            if not self._entries:
                assert self._end is not None
                return self._end
            entry = replace(self._entries.popleft(), number=self._taken)
            self._taken += 1
            self._changed.notify_all()
            return entry

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._entries.clear()
            self._changed.notify_all()


class _Turns:
    """The order in which the workers of a stage hand on what they made."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Wait until all with a smaller number are done; what ends here with `_ClosedError` ends the others too."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next == number)
            if self._closed:
                raise _ClosedError
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def last_to_leave(self) -> bool:
        """Return whether all other workers have left."""
        with self._changed:
            self._workers -= 1
            return self._workers == 0

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class _Times:
    """The last durations of a stage."""

    def __init__(self) -> None:
        self._seconds: collections.deque[float] = collections.deque(maxlen=_KEPT_TIMES)
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self._seconds.append(seconds)

    def summary(self) -> StageTimes:
        with self._lock:
            values = sorted(self._seconds)
        if not values:
            return StageTimes(0.0, 0.0)
        return StageTimes(1e3 * statistics.median(values), 1e3 * values[min(len(values) - 1, int(0.99 * len(values)))])
