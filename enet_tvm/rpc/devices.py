"""Devices at a tracker, listed and claimed: every wait has an end, and every failure a sentence."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

from enet_tvm.errors import UserError
from enet_tvm.rpc.address import Address
from enet_tvm.rpc.messages import LONGEST_KEY, ProtocolError, TrackerCode, parse_grant, parse_summary
from enet_tvm.rpc.relay import shake_hands
from enet_tvm.rpc.wire import TrackerConnection
from enet_tvm.text import printable

_SETTLING_SECONDS = 5.0
"""Seconds that a device is looked for at a tracker that does not know it: a server returns to a new tracker in 2 seconds."""
_CONNECT_SECONDS = 5.0
_MOST_NAMED = 20
"""Largest number of keys that a sentence names."""


@dataclass(frozen=True)
class Device:
    """One server at a tracker.

    Attributes
    ----------
    key : str
        Name of the kind of device.
    address : Address
        Address that it listens on.
    free : bool or None
        Whether nobody uses it; None if the tracker does not say it of single devices.
    """

    key: str
    address: Address
    free: bool | None


@dataclass(frozen=True)
class Devices:
    """The devices at a tracker, and the clients that wait for them.

    Attributes
    ----------
    devices : tuple of Device
        Devices at the tracker, sorted by key and address.
    free, waiting : dict of str to int
        Number of free devices, and of clients that wait for one, by key.
    """

    devices: tuple[Device, ...]
    free: dict[str, int]
    waiting: dict[str, int]

    @property
    def keys(self) -> list[str]:
        """The kinds of device that there are."""
        return sorted({device.key for device in self.devices})

    def of(self, key: str) -> list[Device]:
        """Return the devices of one kind."""
        return [device for device in self.devices if device.key == key]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {
            "devices": [
                {"key": device.key, "host": device.address.host, "port": device.address.port, "free": device.free}
                for device in self.devices
            ],
            "keys": {
                key: {"devices": len(self.of(key)), "free": self.free.get(key, 0), "waiting": self.waiting.get(key, 0)}
                for key in self.keys
            },
        }


def connect_tracker(address: Address, timeout: float = 5.0) -> TrackerConnection:
    """Connect to a tracker.

    Raises
    ------
    UserError
        When there is none.
    """
    try:
        return TrackerConnection(address, timeout)
    except OSError as error:
        raise _no_tracker(address, error) from error


def _no_tracker(address: Address, error: OSError) -> UserError:
    return UserError(
        f"no tracker answers at {address} ({error.strerror or error}); start one with "
        f"'enet-tvm device tracker --port {address.port}', or give another --tracker"
    )


def list_devices(tracker: Address, timeout: float = 5.0) -> Devices:
    """Ask a tracker what it knows.

    Raises
    ------
    UserError
        When there is no tracker.
    """
    with connect_tracker(tracker, timeout) as connection:
        return _ask_devices(tracker, connection)


def _ask_devices(tracker: Address, connection: TrackerConnection) -> Devices:
    try:
        summary = parse_summary(connection.ask(TrackerCode.SUMMARY))
    except OSError as error:
        raise _no_sense(tracker, error) from error
    devices = [Device(server.key, server.address, server.free) for server in summary.servers]
    devices.sort(key=lambda device: (device.key, device.address))
    return Devices(tuple(devices), summary.free, summary.waiting)


def _no_sense(tracker: Address, error: OSError) -> UserError:
    return UserError(f"the tracker at {tracker} gives no answer that makes sense ({error}); start it again")


def require_device(tracker: Address, key: str) -> None:
    """Refuse a key that the tracker does not know, before something long is begun for it; it may be in use.

    Raises
    ------
    UserError
        When there is no tracker or no such device.
    """
    end = time.monotonic() + _SETTLING_SECONDS
    while not (known := list_devices(tracker)).of(key):
        if time.monotonic() >= end:
            raise _unknown(tracker, key, known, "")
        time.sleep(0.2)


def claim_device(
    tracker: Address, key: str, *, wait: float = 30.0, session_seconds: float = 600.0
) -> tuple[socket.socket, Address]:
    """Wait for a device of a kind to be free, take it and connect to it.

    Parameters
    ----------
    tracker : Address
        Address of the tracker.
    key : str
        Name of the kind of device.
    wait : float
        Seconds after which to give up.
    session_seconds : float
        Seconds after which the device is to end the session.

    Returns
    -------
    socket, Address
        Connection to the device after the handshake, and the device's address.

    Raises
    ------
    UserError
        When there is no tracker, no such device, or none that is free or answers in time.
    """
    start = time.monotonic()
    deadline = start + wait
    trouble = ""
    met = False
    while True:
        try:
            connection = connect_tracker(tracker)
        except UserError:
            # One that was there a moment ago may be restarting.
            if not met or time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
            continue
        met = True
        with connection:
            known = _ask_devices(tracker, connection)
            if not known.of(key):
                if time.monotonic() < min(deadline, start + _SETTLING_SECONDS):
                    time.sleep(0.2)
                    continue
                raise _unknown(tracker, key, known, trouble)
            try:
                answer = connection.ask(TrackerCode.REQUEST, key, "", 1, timeout=max(0.1, deadline - time.monotonic()))
                address, match_key = parse_grant(answer)
            except TimeoutError:
                raise _busy(tracker, key, known, wait, trouble) from None
            except ProtocolError as error:
                raise _no_sense(tracker, error) from error
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise _no_tracker(tracker, error) from error
                # It was restarted while we waited: ask the new one.
                trouble = f"; the tracker's last word: {error}"
                time.sleep(0.2)
                continue
        try:
            timeout = max(0.5, min(_CONNECT_SECONDS, deadline - time.monotonic()))
            return shake_hands(address, f"{match_key} -timeout={session_seconds:g}", timeout), address
        except OSError as error:
            trouble = f"; the last one, at {address}, did not answer ({error.strerror or error})"
        if time.monotonic() >= deadline:
            raise UserError(
                f"no device '{key}' answers{trouble}; is its server running, and may this machine reach it? "
                f"Look with: enet-tvm device list --tracker {tracker}"
            )
        time.sleep(0.2)


def _unknown(tracker: Address, key: str, known: Devices, trouble: str) -> UserError:
    keys = [printable(name, LONGEST_KEY) for name in known.keys]
    there = f"it has {', '.join(keys[:_MOST_NAMED])}{' and others' if keys[_MOST_NAMED:] else ''}" if keys else "it has none"
    return UserError(
        f"the tracker at {tracker} has no device '{key}' ({there}{trouble}); give another --key, or start one on the board "
        f"with 'enet-tvm device serve --tracker {tracker} --key {key}'"
    )


def _busy(tracker: Address, key: str, known: Devices, wait: float, trouble: str) -> UserError:
    count = len(known.of(key))
    which = f"the device '{key}' is" if count == 1 else f"all {count} devices '{key}' are"
    return UserError(
        f"{which} in use, and none came free in {wait:g} s{trouble}; try again later; "
        f"see which are free with: enet-tvm device list --tracker {tracker}"
    )
