from __future__ import annotations

import contextlib
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.rpc.wire import pack_text, receive_json, receive_text


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=64))
def test_any_bytes_are_a_message_or_an_os_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        with contextlib.suppress(OSError):
            receive_json(ours, time.monotonic() + 1)


@given(st.text(max_size=200))
def test_texts_arrive(text: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(pack_text(text) + pack_text(json.dumps([text])))
        assert receive_text(ours, deadline=time.monotonic() + 1) == text
        assert receive_json(ours, time.monotonic() + 1) == [text]


def test_a_message_that_comes_drop_by_drop_does_not_wait_for_ever() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(pack_text("hello")[:6])
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            receive_text(ours, deadline=start + 0.2)
        assert time.monotonic() - start < 2
