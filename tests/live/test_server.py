from __future__ import annotations

import socket

import pytest

from enet_tvm.errors import UserError
from enet_tvm.live.access import Gate
from enet_tvm.live.server import listen, page_addresses


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="is something running there already"):
        listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid", "a" * 70 + ".example"])
def test_an_address_that_is_not_this_machines(host: str) -> None:
    with pytest.raises(UserError, match="cannot listen on"):
        listen(host, 0)


def test_the_addresses_hold_the_token_and_name_the_machine() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert page_addresses(listener, Gate(None)) == [f"http://127.0.0.1:{port}/"]
    with listen("0.0.0.0", 0) as listener:
        port = listener.getsockname()[1]
        addresses = page_addresses(listener, Gate("secret"))
        assert addresses
        for address in addresses:
            assert address.endswith(f":{port}/?token=secret")
            assert "0.0.0.0" not in address


def test_addresses_of_version_6_are_in_brackets() -> None:
    try:
        listener = listen("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6")
    with listener:
        assert page_addresses(listener, Gate(None)) == [f"http://[::1]:{listener.getsockname()[1]}/"]
