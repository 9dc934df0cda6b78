"""Opening the source that the arguments of a command mean."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.video.source import VideoSource, is_video, open_camera, open_file, open_folder
from enet_tvm.video.writer import SUFFIXES, video_format

_ANIMATIONS = frozenset({".gif", ".apng"})
"""Files that are videos if the output is one; otherwise their frames are pictures."""


def means_video(inputs: Sequence[str | Path], camera: str | None, output: Path) -> bool:
    """Return whether these are frames of one video rather than pictures, each by itself.

    They are with a camera, a video file or a network address, and where a folder's pictures are to become a video.
    """
    return camera is not None or any(is_video(where) for where in inputs) or output.suffix.lower() in SUFFIXES


def check_options(video: bool, output: Path, **options: object) -> None:
    """Refuse options of pictures for a video, options of a video for pictures, and a video's file of no known kind.

    Parameters
    ----------
    video : bool
        Whether the inputs mean a video (see `means_video`).
    output : Path
        File or folder of the results.
    options : object
        Values of the command's options ``labels``, ``regions``, ``camera_size``, ``rate`` and ``seconds``; false if they were
        not given.

    Raises
    ------
    UserError
        When there is such an option, or such a file.
    """
    wrong = [name for name, value in options.items() if value and (name in ("labels", "regions")) == video]
    if wrong and video:
        raise UserError(f"--{wrong[0]} is for pictures; leave it out, or segment the frames as pictures")
    if wrong:
        raise UserError(f"--{wrong[0].replace('_', '-')} is for videos; leave it out, or name a video as input or output")
    if video:
        video_format(output)


def open_source(
    inputs: Sequence[str | Path],
    camera: str | None = None,
    *,
    size: Size | None = None,
    rate: int | None = None,
    seconds: float | None = None,
) -> VideoSource:
    """Open the one source that is meant.

    Parameters
    ----------
    inputs : sequence of str or Path
        A video file, the address of a network stream, or a folder of pictures; nothing with a camera.
    camera : str, optional
        Number, device or address of a camera.
    size : Size, optional
        Size of frames that the camera is asked for.
    rate : int, optional
        Frames a second that the camera is asked for, or that a folder's pictures are shown at.
    seconds : float, optional
        Seconds of the source to give; all by default, of a camera until it is closed.

    Raises
    ------
    UserError
        When it is not exactly one source, or that cannot be opened.
    """
    return _open(inputs, camera, size, rate).first(seconds)


def _open(inputs: Sequence[str | Path], camera: str | None, size: Size | None, rate: int | None) -> VideoSource:
    if camera is not None:
        if inputs:
            raise UserError(f"--camera and {inputs[0]} are two sources; give one of them")
        return open_camera(camera, size, rate)
    if size is not None:
        raise UserError("only a camera can be asked for a size; leave --camera-size out")
    if not inputs:
        raise UserError("there is nothing to make a video of; name a video file or a folder of pictures, or give --camera")
    if len(inputs) > 1:
        raise UserError(f"a video is made of one source, not {len(inputs)}; give them one by one")
    where = inputs[0]
    if is_video(where) or Path(where).suffix.lower() in _ANIMATIONS:
        if rate is not None:
            raise UserError(f"{where} has its own times; leave --rate out")
        return open_file(where)
    if Path(where).expanduser().is_dir():
        return open_folder(where) if rate is None else open_folder(where, Fraction(rate))
    raise UserError(f"{where} is neither a video nor a folder of pictures; for a picture, give a folder with --output")
