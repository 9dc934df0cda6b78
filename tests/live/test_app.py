from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_server import RATE, SIZE, Camera, Live, picture
from PIL import Image
from websockets.exceptions import InvalidStatus

from enet_tvm.errors import UserError
from enet_tvm.live.access import Gate
from enet_tvm.live.encoding import MessageEncoder
from enet_tvm.live.session import LiveSession

Serve = Callable[..., Live]
TOKEN = "a-secret"


def test_the_page_is_whole_and_may_load_nothing_from_elsewhere(serve: Serve) -> None:
    status, text, headers = serve(Camera().source()).get()
    assert status == 200
    assert "<canvas" in text
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert " src=" not in text
    assert 'href="http' not in text
    assert "@import" not in text


def test_a_viewer_is_told_what_it_sees_then_figures_and_pictures(serve: Serve, tiny_artifact: Any) -> None:
    live = serve(Camera().source())
    viewer = live.watch()
    header, jpeg, png = viewer.picture()
    assert viewer.about["artifact"] == "street"
    assert [kind["name"] for kind in viewer.about["classes"]] == ["sky", "road", "tree", "car"]
    assert viewer.about["source_size"] == list(SIZE)
    shown = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert shown.shape == (SIZE.height, SIZE.width, 3)
    assert np.abs(shown.astype(int) - picture(header["frame"])).mean() < 8
    labels = Image.open(io.BytesIO(png))
    assert labels.mode == "P"
    assert labels.size == tuple(viewer.about["network_size"])
    numbers = np.asarray(labels) % 128
    shares = np.bincount(numbers.ravel(), minlength=4) / numbers.size
    np.testing.assert_allclose(header["shares"], shares, atol=1e-4)
    figures = viewer.wait_for_figures(lambda found: found["frames"] > 2 and found["fps"] > 0)
    assert list(figures["stages"]) == ["source", "preprocess", "network", "encode"]
    assert figures["viewers"] == 1
    assert figures["ended"] is None
    assert viewer.picture()[0]["frame"] > header["frame"]


@pytest.mark.slow
def test_several_viewers_cost_one_inference(serve: Serve) -> None:
    camera = Camera(paced=False)
    live = serve(camera.source())
    viewers = [live.watch() for _ in range(3)]
    for viewer in viewers:
        viewer.wait_for_figures(lambda found: found["viewers"] == 3)
    live.passes.clear()
    seen = []
    for _ in range(4):
        live.shoot(camera)
        seen.append([viewer.picture()[0]["frame"] for viewer in viewers])
    assert seen == [[index] * 3 for index in range(4)]
    assert len(live.passes) == 4


def test_nothing_is_encoded_while_nobody_looks_and_the_network_goes_on(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(paced=False)
    encoded: list[int] = []
    asked: list[Callable[[], bool]] = []
    encode, start = MessageEncoder.__call__, LiveSession.start

    def counted(encoder: MessageEncoder, item: Any) -> bytes:
        encoded.append(item.frame.index)
        return encode(encoder, item)

    def started(session: LiveSession, wanted: Callable[[], bool], *others: Any) -> None:
        asked.append(wanted)
        start(session, wanted, *others)

    monkeypatch.setattr(MessageEncoder, "__call__", counted)
    monkeypatch.setattr(LiveSession, "start", started)
    live = serve(camera.source())
    viewer = live.watch()
    viewer.receive()
    live.shoot(camera)
    assert viewer.picture()[0]["frame"] == 0
    viewer.connection.close()
    deadline = time.monotonic() + 30
    while asked[0]():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for count in (2, 3):
        camera.shoot()
        while live.session.figures(0)["frames"] < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert encoded == [0]
    # Who comes then does not see what was there when the last one left.
    again = live.watch()
    again.wait_for_figures(lambda found: found["viewers"] == 1)
    live.shoot(camera)
    assert again.picture()[0]["frame"] == 3


def test_a_viewer_that_takes_nothing_slows_nobody_and_skips_what_it_missed(serve: Serve) -> None:
    camera = Camera(paced=False)
    live = serve(camera.source())
    slow, quick = live.watch(), live.watch()
    for viewer in (slow, quick):
        viewer.wait_for_figures(lambda found: found["viewers"] == 2)
    for index in range(8):
        live.shoot(camera)
        assert quick.picture()[0]["frame"] == index
    # Two were on the way to the slow one; when it has drawn them, it gets the newest.
    frames = [slow.picture()[0]["frame"] for _ in range(3)]
    assert frames == [0, 1, 7]


@pytest.mark.slow
def test_a_viewer_gets_no_more_than_two_pictures_that_it_has_not_drawn(serve: Serve) -> None:
    live = serve(Camera().source())
    viewer = live.watch()
    pictures = 0
    start = time.monotonic()
    while time.monotonic() < start + 20 / float(RATE):
        pictures += viewer.receive() is not None
    assert pictures == 2
    assert len(live.passes) > 4


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("message", ["Drawn", "", "{}", b"drawn", "x" * 1000])
def test_a_viewer_that_says_something_else_is_sent_away_and_others_stay(serve: Serve, message: str | bytes) -> None:
    live = serve(Camera().source())
    other, wrong = live.watch(), live.watch()
    wrong.connection.send(message)
    wrong.receive_until_closed()
    before = other.picture()[0]["frame"]
    assert other.picture()[0]["frame"] > before


def test_a_long_message_is_refused(serve: Serve) -> None:
    live = serve(Camera().source())
    viewer = live.watch()
    viewer.connection.send("drawn" * 1000)
    viewer.receive_until_closed()
    assert live.watch().picture()


def test_bytes_that_are_no_request_do_no_harm(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    live = serve(Camera().source())
    handshake = (
        f"GET /watch HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()

    def answer(data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"GET /watch HTTP/1.1\r\nUpgrade: websocket\r\n", handshake]),
        st.binary(max_size=64),
    )
    def attack(start: bytes, rest: bytes) -> None:
        answer(start + rest)

    attack()
    answer(handshake.replace(b"Version: 13", b"Version: 99"))
    answer(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # as of somebody who believes in TLS
    answer(handshake + bytes([0x81, 0x05]) + b"drawn")  # not masked
    assert live.watch().picture()
    assert "Traceback" not in capfd.readouterr().err


def test_paths_and_methods_that_do_not_exist(serve: Serve) -> None:
    live = serve(Camera().source())
    assert live.get("page.html")[0] == 404
    assert live.get("../pyproject.toml")[0] == 404
    assert live.get("%00")[0] == 404
    assert live.get("watch")[0] == 404  # not as a page


def test_names_that_are_not_this_machine_are_refused(serve: Serve) -> None:
    live = serve(Camera().source())
    status, text, _ = live.get(headers={"Host": f"rebound.example:{live.port}"})
    assert status == 403
    assert "printed" in text
    with pytest.raises(InvalidStatus, match="403"):
        live.connect(origin="http://elsewhere.example")
    assert live.connect(origin=live.address.rstrip("/"))


def test_without_the_token_there_is_neither_page_nor_picture(serve: Serve) -> None:
    live = serve(Camera().source(), Gate(TOKEN))
    assert live.address.endswith(f"/?token={TOKEN}")
    for query in ("", "?token=", "?token=a-secre", "?token=%FF%FF"):
        assert live.get(query)[0] == 403
        with pytest.raises(InvalidStatus, match="403"):
            live.connect(query)
    assert live.get(f"?token={TOKEN}")[0] == 200
    assert live.watch(f"?token={TOKEN}").picture()


@pytest.mark.slow
def test_a_source_that_ends_leaves_its_last_picture_to_who_comes_later(serve: Serve) -> None:
    camera = Camera(frames=3)
    live = serve(camera.source())
    assert camera.closed.wait(30)
    viewer = live.watch()
    assert viewer.picture()[0]["frame"] == 2
    assert viewer.wait_for_figures(lambda found: found["ended"])["ended"] == "the video has ended"
    assert live.session.error is None
    viewer.connection.close()
    assert live.watch().picture()[0]["frame"] == 2


@pytest.mark.slow
def test_a_camera_that_breaks_off_is_told_in_a_sentence(serve: Serve) -> None:
    failure = UserError("camera /dev/video0 ended at frame 2; check that it is connected")
    live = serve(Camera(frames=2, failure=failure).source())
    viewer = live.watch()
    assert viewer.wait_for_figures(lambda found: found["ended"])["ended"] == str(failure)
    assert live.session.error is failure


def test_the_source_is_closed_by_the_thread_that_reads_it(serve: Serve) -> None:
    camera = Camera()
    live = serve(camera.source())
    live.watch().picture()
    live.server.close()
    live.session.close()
    assert camera.closed.wait(30)
    assert camera.closed_by == "enet-tvm-source"


def test_closing_waits_for_no_viewer_that_has_stopped_reading(serve: Serve) -> None:
    live = serve(Camera().source())
    deaf = live.watch(max_queue=1)
    before = time.monotonic()
    live.server.close()
    assert time.monotonic() - before < 5  # a second, where nothing else computes
    deaf.receive_until_closed()
