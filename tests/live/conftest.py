from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_server import Live

from enet_tvm.live.access import Gate
from enet_tvm.live.server import LiveServer, listen, page_addresses
from enet_tvm.live.session import LiveSession
from enet_tvm.runtime.segmenter import Segmenter
from enet_tvm.video.source import VideoSource


@pytest.fixture
def serve(tiny_artifact: Any) -> Iterator[Callable[..., Live]]:
    """Makes ``serve(source)`` a server on a free port, ended after the test."""
    with ExitStack() as stack:

        def end(camera: Any) -> None:
            """Leave no thread to the next test that waits for a picture."""
            camera.end()
            deadline = time.monotonic() + 10
            while any(thread.name == "enet-tvm-source" for thread in threading.enumerate()) and time.monotonic() < deadline:
                time.sleep(0.01)

        def start(source: VideoSource, gate: Gate | None = None, directory: Path | None = None, port: int = 0) -> Live:
            segmenter = stack.enter_context(Segmenter.load(directory or tiny_artifact.directory, 1))
            stack.callback(end, source.reader)
            session = stack.enter_context(LiveSession(segmenter, source, "street"))
            passes: list[float] = []
            forward = segmenter.forward

            def counted(x: np.ndarray) -> Any:
                passes.append(time.monotonic())
                return forward(x)

            segmenter.forward = counted  # type: ignore[method-assign]
            gate = gate or Gate(None)
            listener = listen("127.0.0.1", port)
            server = stack.enter_context(LiveServer(session, listener, gate))
            return Live(session, segmenter, server, page_addresses(listener, gate)[0], passes, stack)

        yield start
