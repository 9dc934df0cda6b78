"""The segmenter: an artifact, loaded, from pictures to label maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from enet_tvm.artifact import Manifest, check_artifact
from enet_tvm.errors import UserError
from enet_tvm.runtime.engine import LocalEngine, Signature, aligned_empty
from enet_tvm.runtime.gpu import gpu_arch
from enet_tvm.runtime.labels import most_likely, resize_labels
from enet_tvm.runtime.pictures import Channels, as_rgb, require_channels, rgb_pixels
from enet_tvm.runtime.protocol import Capability, Engine
from enet_tvm.runtime.stream import Stage, Stream
from enet_tvm.size import Size

Picture = Image.Image | NDArray[np.uint8]

_MOST_PARTS = 4
"""Largest number of passes side by side: each has the memory of all layers to itself."""


@dataclass(frozen=True)
class Segmented:
    """A frame of a stream with its labels.

    Attributes
    ----------
    frame : PIL.Image.Image or ndarray
        The picture that the source gave.
    labels : ndarray
        H x W uint8 class numbers at its size.
    """

    frame: Picture
    labels: NDArray[np.uint8]


class Segmenter:
    """A compiled network that labels the pixels of pictures.

    Make one with `Segmenter.load`. It may be called from any thread, one call at a time; it owns the threads it
    computes with, which `close`, the end of a ``with`` block or its deletion ends. Calls that other threads have made
    before `close` are answered; later ones raise a `UserError`.

    A process forked from the one that loaded it may call it too: it makes threads of its own there, and shares the memory
    of the weights. What was compiled for a GPU cannot be used after a fork, and says so. Pickled, for a process started
    with the method ``spawn`` or elsewhere on this machine, it is loaded again from the artifact's directory, where the same
    artifact must still be, with the number of threads that was asked for.

    Attributes
    ----------
    manifest : Manifest
        Description of the artifact: classes, palette, input shape, target.
    size : Size
        Width and height of the network's input.
    """

    def __init__(self, manifest: Manifest, engine: Engine) -> None:
        self.manifest = manifest
        self._engine = engine
        self._origin: tuple[Path, int | None, bool] | None = None
        self._parts: list[Self] = []
        self._batch, _, height, width = manifest.input.shape
        self.size = Size(width, height)
        mean, std = (np.asarray(values, np.float64) for values in (manifest.input.mean, manifest.input.std))
        self._scale = (1 / (255 * std)).astype(np.float32)
        self._shift = (-mean / std).astype(np.float32)

    @property
    def threads(self) -> int:
        """Threads that a forward pass uses at most."""
        return self._engine.threads

    @property
    def threads_now(self) -> int:
        """Threads that the last forward pass used: fewer than `threads` while other work left no processors for them."""
        return self._engine.threads_now

    @property
    def cores(self) -> str:
        """Processors that its threads are bound to, or why they are not, in words; empty where the target names none."""
        return self._engine.cores

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Capabilities of its engine, to be asked for before `forward_timed`, `run_instrumented` or `time_kernels`."""
        return self._engine.capabilities

    @classmethod
    def load(cls, directory: str | Path, threads: int | None = None, *, adaptive: bool = True) -> Self:
        """Load an artifact after checking that it is whole and fits this machine.

        Parameters
        ----------
        directory : str or Path
            Directory of an artifact, written by ``enet-tvm compile``.
        threads : int or None
            Threads that a forward pass uses at most, up to one for each processor that this process may run on, also where its
            control group's CPU quota is worth fewer. By default as many as both allow, or ``TVM_NUM_THREADS``
            (see `enet_tvm.machine.default_threads`).
        adaptive : bool
            Whether a pass uses fewer threads while other work leaves no processors for them, which is then faster. To be
            left out where the number is what is measured.

        Raises
        ------
        UserError
            When the artifact is not whole or does not fit this machine, or so many threads cannot be had.
        """
        manifest = check_artifact(directory, gpu_arch)
        place = Path(directory).expanduser()
        signature = Signature(manifest.input.shape, manifest.output.shape, manifest.output.dtype)
        target = manifest.target
        engine = LocalEngine(
            place / manifest.library, threads, target.device, adaptive=adaptive, signature=signature, cores=target.core_list
        )
        segmenter = cls(manifest, engine)
        segmenter._origin = (place.resolve(), threads, adaptive)
        return segmenter

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to load the segmenter again: for pickle, and so for another process.

        Raises
        ------
        UserError
            When it was not loaded from a directory, such as one on a device.
        """
        if self._origin is None:
            raise UserError(f"a {type(self).__name__} cannot be sent to another process; make one there")
        return _load_again, (type(self), *self._origin, self.manifest.hashes.library)

    def parts(self) -> list[Self]:
        """Return segmenters of the same network that share this one's threads, or its GPU, out, for pictures side by side.

        Threads of one pass wait for each other at the end of every kernel, those of two passes do not: two pictures at once,
        each on one thread, take less time than one after the other on two. A single picture takes longer. On a GPU, one
        picture is moved there, or its labels back, while it computes another. They are loaded when first asked for and closed
        with this one, which on a GPU is one of them, and otherwise not to be called while they are.

        Returns
        -------
        list of Segmenter
            At most four, on a GPU two; this one alone where it has a single thread, or an engine without
            `Capability.SIDE_BY_SIDE`: on a device.
        """
        if self.manifest.target.device != "cpu" and self._origin is not None and Capability.SIDE_BY_SIDE in self.capabilities:
            if not self._parts:
                self._parts.append(type(self).load(self._origin[0], 1, adaptive=False))
            return [self, *self._parts]
        count = min(_MOST_PARTS, self.threads)
        if count == 1 or self._origin is None or Capability.SIDE_BY_SIDE not in self.capabilities:
            return [self]
        place, _, adaptive = self._origin
        for number in range(len(self._parts), count):
            threads = self.threads // count + (number < self.threads % count)
            self._parts.append(type(self).load(place, threads, adaptive=adaptive))
        return self._parts

    def segment(self, picture: Picture, *, channels: Channels = "rgb") -> NDArray[np.uint8]:
        """Label every pixel of a picture.

        Parameters
        ----------
        picture : PIL.Image.Image or ndarray
            Image of any size and mode, or H x W x 3 uint8 array. It is taken as it lies: an EXIF rotation is
            `load_picture`'s affair. Of an animated image, the frame that it shows.
        channels : {"rgb", "bgr"}
            Order of an array's channels. Frames of OpenCV (``cv2.VideoCapture``, ``cv2.imread``) are ``"bgr"``, and
            wrong labels are all that tells one from the other.

        Returns
        -------
        ndarray
            H x W uint8 class numbers at the picture's own size. The network's label map is enlarged or reduced to
            it by taking the nearest label.

        Raises
        ------
        UserError
            When the picture is neither, or `channels` does not fit it.
        """
        image = _as_image(picture, channels)
        return self.labels(self._forward(self.preprocess(image))[0], Size(*image.size))

    def stream(
        self, frames: Iterable[Picture], *, live: bool = False, depth: int = 2, channels: Channels = "rgb"
    ) -> Stream[Segmented]:
        """Label frame after frame, what comes before and after the network beside it.

        While the network computes one frame, the next is decoded and brought to its size and the last one's labels to
        theirs. Frames of a recorded source are computed side by side (see `parts`), a live source's one by one on all
        threads. The results come in order; each equals `segment` of its frame. No other call of the segmenter may run
        until the stream is closed: ``with segmenter.stream(camera(), live=True) as results: ...``.

        Parameters
        ----------
        frames : iterable of PIL.Image.Image or ndarray
            Pictures as `segment` takes them; it is iterated on a thread of the stream.
        live : bool
            Whether frames come by themselves, as a camera's: then the oldest waiting ones are dropped rather than falling
            behind. Otherwise none is lost, and the source waits.
        depth : int
            Largest number of frames that wait in front of each stage. With 1, a live stream is the most up to date.
        channels : {"rgb", "bgr"}
            Order of an array's channels; OpenCV's are ``"bgr"``.

        Returns
        -------
        Stream of Segmented
            Frames with their labels, to be iterated over once; its `statistics` tell frames a second, each stage's milliseconds
            and drops.
        """

        def prepare(frame: Picture) -> tuple[Picture, Size, NDArray[np.float32]]:
            image = _as_image(frame, channels)
            return frame, Size(*image.size), self.preprocess(image)

        def inferring(part: Segmenter) -> Callable[[Any], tuple[Picture, Size, NDArray[Any]]]:
            def infer(item: tuple[Picture, Size, NDArray[np.float32]]) -> tuple[Picture, Size, NDArray[Any]]:
                frame, size, x = item
                return frame, size, part._forward(x)[0]

            return infer

        def finish(item: tuple[Picture, Size, NDArray[Any]]) -> Segmented:
            frame, size, output = item
            return Segmented(frame, self.labels(output, size))

        parts = [self] if live else self.parts()
        network = Stage("network", [inferring(part) for part in parts])
        stages = (Stage("preprocess", prepare), network, Stage("labels", finish))
        return Stream(frames, stages, live=live, depth=depth)

    def preprocess(self, picture: Picture, *, channels: Channels = "rgb") -> NDArray[np.float32]:
        """Return the network's input for a picture: resized (bilinear, PIL's), scaled to 0..1, normalised.

        `picture` and `channels` are as `segment` takes them.

        Returns
        -------
        ndarray
            1 x 3 x H x W float32 input of the network's size, aligned so that `forward` need not copy it.
        """
        image = _as_image(picture, channels)
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return self.normalise([pixels[:, :, channel] for channel in range(3)])

    def normalise(self, planes: Sequence[NDArray[np.uint8]], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return the network's input for the red, green and blue planes, each H x W uint8 of the network's input size.

        `out`, an input that is no longer needed, takes the new one, which saves making room for it.

        Returns
        -------
        ndarray
            1 x 3 x H x W float32 input, scaled to 0..1, normalised, aligned so that `forward` need not copy it.
        """
        x = aligned_empty((1, 3, self.size.height, self.size.width)) if out is None else out
        for plane, pixels, scale, shift in zip(x[0], planes, self._scale, self._shift, strict=True):
            np.multiply(pixels, scale, out=plane)
            plane += shift
        return x

    def forward(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """Run the network.

        Parameters
        ----------
        x : ndarray
            N x 3 x H x W float32 input, normalised and finite; N need not be the batch the network was compiled for.

        Returns
        -------
        ndarray
            N x classes x H x W float32 logits; of a network compiled to return labels, those, N x H x W uint8.

        Raises
        ------
        UserError
            When `x` has another shape or type, or holds NaN or infinity: maxima and codes of integers lose them, so the
            network would label those pixels like any others. Looking takes less than a hundredth of a pass of float32.
        """
        return self._forward(self._checked(x))

    def _forward(self, x: NDArray[np.float32]) -> NDArray[Any]:
        if len(x) == self._batch:
            return self._engine.run(x)
        output = np.empty((len(x), *self.manifest.output.shape[1:]), self.manifest.output.dtype)
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            padded = np.concatenate([part, np.zeros((self._batch - len(part), *x.shape[1:]), np.float32)])
            output[start : start + len(part)] = self._engine.run(padded)[: len(part)]
        return output

    def forward_timed(self, x: NDArray[np.float32]) -> tuple[NDArray[Any], float, float]:
        """Run the network on one batch; return its output, the seconds of computing, and those of moving data to and fro.

        Raises
        ------
        UserError
            When `x` is not float32 of exactly the compiled shape, or not finite, or the engine lacks `Capability.TIMED_PASSES`.
        """
        return self._engine.run_timed(self._one_batch(x))

    def labels(self, output: NDArray[Any], size: Size | None = None) -> NDArray[np.uint8]:
        """Return the label map of what `forward` returned for one picture, at `size` if given."""
        labels = output if self.manifest.output.labels else most_likely(output)
        return labels if size is None else resize_labels(labels, size)

    def run_instrumented(self, x: NDArray[np.float32]) -> list[tuple[str, NDArray[Any]]]:
        """Run the network on one batch and return what every kernel wrote.

        Parameters
        ----------
        x : ndarray
            float32 input of exactly the compiled shape, N x 3 x H x W.

        Returns
        -------
        list of (str, ndarray)
            Name and output of each kernel in launch order, in the layout that ``manifest.kernels`` gives.

        Raises
        ------
        UserError
            When `x` has another shape or type, or the engine lacks `Capability.KERNEL_OUTPUTS`.
        """
        return self._engine.run_instrumented(self._one_batch(x))

    def time_kernels(self, x: NDArray[np.float32], passes: int) -> list[list[tuple[str, float]]]:
        """Run the network `passes` times on one batch; return every kernel's name and seconds, pass by pass.

        Raises
        ------
        UserError
            When `x` is not float32 of exactly the compiled shape, or not finite, or the engine lacks `Capability.KERNEL_TIMES`.
        """
        return self._engine.time_kernels(self._one_batch(x), passes)

    def _one_batch(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = self._checked(x)
        if len(x) != self._batch:
            raise UserError(f"the network was compiled for batches of {self._batch}, not {len(x)}; give one batch")
        return x

    def _checked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = np.asarray(x)
        if x.dtype != np.float32:
            raise UserError(f"the network takes float32, not {x.dtype}; convert the input, or use preprocess()")
        if x.ndim != 4 or x.shape[1:] != self.manifest.input.shape[1:]:
            wanted = "x".join(str(extent) for extent in self.manifest.input.shape[1:])
            given = "x".join(str(extent) for extent in x.shape)
            raise UserError(f"the network takes Nx{wanted}, not {given}; use preprocess(), or compile for another --size")
        if not _is_finite(x):
            raise UserError(
                "the input holds NaN or infinity, which the network would label like any pixel; fill such pixels in"
            )
        return x

    def close(self) -> None:
        """End the segmenter's threads; it cannot run afterwards."""
        for part in self._parts:
            part.close()
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _is_finite(x: NDArray[np.float32]) -> bool:
    # One pass over what the kernels read next, with neither a mask nor a BLAS, whose threads would meet the network's: a sum
    # is finite only if all of it is, unless it overflows.
    return bool(np.isfinite(np.einsum("i->", x.ravel(order="K"))) or np.isfinite(x).all())


def _load_again(kind: type[Segmenter], directory: Path, threads: int | None, adaptive: bool, library: str | None) -> Segmenter:
    # Looked at before it is loaded: the other artifact's code is not to run.
    if check_artifact(directory).hashes.library != library:
        raise UserError(f"{directory} was compiled again since the segmenter was pickled; load the artifact anew")
    return kind.load(directory, threads, adaptive=adaptive)


def _as_image(picture: Picture, channels: Channels) -> Image.Image:
    if isinstance(picture, Image.Image):
        require_channels(picture, channels)
        try:
            return as_rgb(picture)
        except ValueError as error:
            raise UserError(f"the picture cannot be labelled: {error}; fill them in") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        what = f"{picture.dtype} of shape {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise UserError(f"a picture is a PIL image or an HxWx3 uint8 array, not {what}; convert it")
    if 0 in picture.shape:
        raise UserError("the picture is empty; give one with at least one pixel")
    return Image.fromarray(rgb_pixels(picture, channels))
