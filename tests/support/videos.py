"""Small videos, written and read with PyAV."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture, H x W x 3, that no other index has: red grows to the right, green downwards, blue with the index."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 10 * index % 256)], axis=-1).astype(np.uint8)


def noise(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture, H x W x 3, that takes room in a file."""
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray] | int = 12,
    *,
    rate: int = 12,
    times: Sequence[int] | None = None,
    tone: float = 0.0,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    group: int = 6,
    rotation: int = 0,
    kind: str | None = None,
    **options: str,
) -> Path:
    """Write pictures, or so many of `picture`, at `times` in milliseconds, with so many seconds of a tone as AAC."""
    if isinstance(pictures, int):
        pictures = [picture(index) for index in range(pictures)]
    times = [round(1000 * index / rate) for index in range(len(pictures))] if times is None else times
    with av.open(str(path), "w", format=kind, options=options) as container:
        video = container.add_stream(codec, rate=rate)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = pixels
        video.codec_context.gop_size = group
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if tone else None
        for pixels_of_one, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels_of_one, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound is not None:
            wave = np.sin(np.arange(round(16000 * tone)) / 8).astype(np.float32)[None]
            for start in range(0, wave.shape[1], 1024):
                part = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[:, start : start + 1024]), "fltp", "mono")
                part.sample_rate, part.pts = 16000, start
                container.mux(sound.encode(part))
            container.mux(sound.encode(None))
    return path


def read_video(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Return the times, in seconds, and the pictures of all frames that a player would show."""
    frames = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames += packet.decode()
            except av.InvalidDataError:  # the last one of a file that was cut off
                continue
    return [round(float(frame.time), 4) for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def spoil_frames(path: Path, *indices: int) -> Path:
    """Give frames of an H.264 file, by their number in it, lengths that cannot be."""
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for index in indices:
        content[places[index] : places[index] + 4] = b"\x7f\xff\xff\xff"
    path.write_bytes(content)
    return path


def audio_packets(path: Path) -> list[tuple[float, bytes]]:
    """Return the times, in seconds, and the content of all packets of sound."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.audio[0]
        return [(round(float(p.pts * p.time_base), 4), bytes(p)) for p in container.demux(stream) if p.size]


@contextlib.contextmanager
def served(content: bytes, *, live: bool = False, silent: float = 0.0) -> Iterator[str]:
    """Serve a video by HTTP on loopback and yield its address.

    A live one has no length, and after its end the connection stays open, without a word, for so many seconds.
    """
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            self.send_response(200 if live else 206)
            if live:
                self.send_header("Connection", "close")
            else:
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content if live else content[start:])
                over.wait(silent)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/ride"
        finally:
            over.set()
            server.shutdown()
            thread.join()
