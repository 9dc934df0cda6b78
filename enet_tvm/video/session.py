"""A video through a segmenter: labels for whoever shows them, or the overlay as a video file, and what every stage costs."""

from __future__ import annotations

import collections
import contextlib
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enet_tvm.errors import UserError
from enet_tvm.runtime.engine import aligned_empty
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.runtime.stream import Stage, Stream, StreamStatistics
from enet_tvm.size import Size
from enet_tvm.video.frame import Frame, PlanarResizer
from enet_tvm.video.painting import Painter
from enet_tvm.video.source import VideoSource
from enet_tvm.video.writer import VideoWriter

_PASSES_ALONE = 15


@dataclass(frozen=True)
class LabelledFrame:
    """A frame of a video with its labels.

    Attributes
    ----------
    frame : Frame
        Frame as the source gave it.
    labels : ndarray
        H x W uint8 class numbers at the network's size.
    """

    frame: Frame
    labels: NDArray[np.uint8]


def label_frames(
    segmenter: Segmenter, source: VideoSource, *, then: tuple[Stage, ...] = (), depth: int | None = None
) -> Stream[Any]:
    """Return the stream of a source's frames with their labels.

    Parameters
    ----------
    segmenter : Segmenter
        Network that labels the frames; it may do nothing else until the stream is closed.
    source : VideoSource
        Source of the frames; a live one drops those that come while everything is busy.
    then : tuple of Stage
        Stages that process each `LabelledFrame` after the network; the last one's results are the stream's.
    depth : int, optional
        Largest number of frames that wait in front of each stage; by default 1 of a live source, for the sake of latency, else
        2.
    """
    resize = PlanarResizer(segmenter.size)
    spare: collections.deque[NDArray[np.float32]] = collections.deque()  # inputs to be used again, by any thread

    def prepare(frame: Frame) -> tuple[Frame, NDArray[np.float32]]:
        return frame, segmenter.normalise(resize(frame), out=spare.pop() if spare else None)

    def inferring(part: Segmenter) -> Callable[[Any], LabelledFrame]:
        def infer(item: tuple[Frame, NDArray[np.float32]]) -> LabelledFrame:
            frame, x = item
            output = part.forward(x)
            spare.append(x)
            return LabelledFrame(frame, part.labels(output[0]))

        return infer

    network = Stage("network", [inferring(part) for part in network_parts(segmenter, source)])
    stages = (Stage("preprocess", prepare), network, *then)
    return Stream(source, stages, live=source.live, depth=depth or (1 if source.live else 2))


def network_parts(segmenter: Segmenter, source: VideoSource) -> list[Segmenter]:
    """Return the segmenters for a source's frames: several side by side for a file, one for a live source's lower latency."""
    return [segmenter] if source.live else segmenter.parts()


def rate_alone(parts: Sequence[Segmenter], passes: int = _PASSES_ALONE) -> float:
    """Return the forward passes a second of segmenters side by side, from the median of some of each, after two to warm up."""

    def seconds(part: Segmenter) -> float:
        x = aligned_empty((1, 3, part.size.height, part.size.width))
        x[...] = 0
        durations = []
        for _ in range(passes + 2):
            started = time.perf_counter()
            part.forward(x)
            durations.append(time.perf_counter() - started)
        return statistics.median(durations[2:])

    with ThreadPoolExecutor(len(parts)) as threads:
        return sum(1 / each for each in threads.map(seconds, parts))


@dataclass(frozen=True)
class VideoReport:
    """Outcome of a video.

    Attributes
    ----------
    source, output : str
        Names of the source and of the file written.
    live : bool
        Whether the source was live, such as a camera.
    size, network_size : Size
        Size of the frames, and of the network's input.
    threads : int
        Number of threads of the network.
    cores : str
        Processors that those threads are bound to, or why they are not; empty where the target names none.
    side_by_side : int
        Number of frames that the network computes at once, sharing the threads.
    statistics : StreamStatistics
        Counts of frames and drops, and the milliseconds of each stage.
    alone : float
        Frames a second that the network by itself could do, measured before the first frame.
    broken : int
        Number of frames that could not be decoded, and were left out.
    audio : str
        Outcome for the sound: "copied", "none", or why it was left out.
    interrupted : bool
        Whether Ctrl-C or SIGTERM ended it, which is how a live source ends.
    error : str or None
        Sentence on why it ended early; what was written until then can be played.
    """

    source: str
    output: str
    live: bool
    size: Size
    network_size: Size
    threads: int
    cores: str
    side_by_side: int
    statistics: StreamStatistics
    alone: float
    broken: int
    audio: str
    interrupted: bool = False
    error: str | None = None

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 2 if it ended early or left frames of a file out, 130 if a file was interrupted, else 0."""
        if self.error is not None or (self.broken and not self.live):
            return 2
        return 130 if self.interrupted and not self.live else 0

    def to_json(self) -> dict[str, Any]:
        """Return the report, ready for JSON."""
        found = self.statistics
        return {
            "source": self.source,
            "output": self.output,
            "live": self.live,
            "size": str(self.size),
            "network_size": str(self.network_size),
            "threads": self.threads,
            **({"cores": self.cores} if self.cores else {}),
            "side_by_side": self.side_by_side,
            "frames": found.items,
            "dropped": found.dropped,
            "broken": self.broken,
            "audio": self.audio,
            "seconds": found.seconds,
            "frames_per_second": found.rate,
            "network_alone_per_second": self.alone,
            "of_the_network_alone": found.rate / self.alone,
            "interrupted": self.interrupted,
            "error": self.error,
            "latency_ms": asdict(found.latency),
            "stages_ms": {name: asdict(times) for name, times in found.stages.items()},
        }


def segment_video(
    segmenter: Segmenter,
    source: VideoSource,
    output: Path,
    *,
    opacity: float = 0.5,
    progress: Callable[[int, int], None] = lambda _frames, _dropped: None,
) -> VideoReport:
    """Write a source's frames under the colours of their labels, until it ends, breaks off, or Ctrl-C or SIGTERM comes.

    Parameters
    ----------
    segmenter : Segmenter
        Network that labels the frames.
    source : VideoSource
        Source of the frames.
    output : Path
        Video file to write; see `VideoWriter`.
    opacity : float
        Opacity of the colours: 0 shows the frame, 1 the colours only.
    progress : callable
        Called after each frame with the numbers of those that were written and dropped.

    Raises
    ------
    UserError
        When the file cannot be made, or not a single frame comes. What happens later is the report's `error`.
    """
    painter = Painter(segmenter.manifest.palette, opacity)
    writer = VideoWriter(output, source.size, source.rate, source.audio)

    def paint(item: LabelledFrame) -> Any:
        return painter.paint(item.frame, item.labels)

    def encode(image: Any) -> None:
        writer.write(image, source.take_audio())

    failed: UserError | None = None
    interrupted = False
    with writer, _terminable():
        parts = network_parts(segmenter, source)
        alone = rate_alone(parts)
        with label_frames(segmenter, source, then=(Stage("overlay", paint), Stage("encode", encode))) as stream:
            try:
                for count, _ in enumerate(stream, start=1):
                    progress(count, stream.dropped)
            except KeyboardInterrupt:
                interrupted = True
            except UserError as error:
                failed = error
        try:
            writer.close(source.take_audio())
        except UserError as error:
            failed = failed or error
    if not writer.frames:
        if failed is None and interrupted:
            raise KeyboardInterrupt
        raise failed or UserError(f"{source.name} gave no frame in that time; give it more")
    audio = "none" if source.audio is None else "copied" if writer.audio_left_out is None else writer.audio_left_out
    return VideoReport(
        source=source.name,
        output=str(writer.path),
        live=source.live,
        size=source.size,
        network_size=segmenter.size,
        threads=segmenter.threads,
        cores=segmenter.cores,
        side_by_side=len(parts),
        statistics=stream.statistics(),
        alone=alone,
        broken=source.broken,
        audio=audio,
        interrupted=interrupted,
        error=None if failed is None else f"{failed}; {writer.path} can be played as far as it goes",
    )


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, as `timeout` and supervisors send it, end the block like Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
