"""`enet-tvm live`: a page in the browser with the overlay of what a camera sees."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    artifact: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact that 'enet-tvm compile' wrote.")],
    video: Annotated[
        str | None,
        typer.Argument(metavar="[VIDEO]", help="Video file, folder of pictures, or address (rtsp://...); or give --camera."),
    ] = None,
    camera: Annotated[
        str | None, typer.Option("--camera", metavar="CAMERA", help="0 for /dev/video0, a device, or the address of a stream.")
    ] = None,
    camera_size: Annotated[
        str | None, typer.Option("--camera-size", metavar="WxH", help="Ask the camera for this size, as 1280x720.")
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, max=1000, help="Frames a second: asked of the camera, or of a folder.")
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin a file again when it has ended.")] = False,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any.")] = 8360,
    opacity: Annotated[float, typer.Option("--opacity", help="Of the colours at the start: 0 to 1.")] = 0.5,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads to use; all processors if not given.")] = None,
) -> None:
    """Show in the browser what the network sees, live, until Ctrl-C.

    The page is for this machine alone unless --host is given; then its address holds a token, without which nobody may look.
    However many look, each frame is labelled once; a file plays at its own speed.
    """
    from enet_tvm.live.libraries import check_libraries

    check_libraries()
    from enet_tvm.live.command import LiveRequest, show_live
    from enet_tvm.size import parse_size

    size = None if camera_size is None else parse_size(camera_size)
    show_live(LiveRequest(artifact, video, camera, size, rate, loop, host, port, opacity, threads), typer.echo)
