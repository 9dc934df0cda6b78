"""Whose session folders are whose: servers in containers share a folder but not their process numbers."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from enet_tvm.rpc.session_folder import SessionFolder, remove_leftovers

OWNER = """
import sys
from pathlib import Path
from enet_tvm.rpc.session_folder import SessionFolder
folder = SessionFolder(Path(sys.argv[1]))
(folder.files / "model.so").write_bytes(b"model")
print(folder.files, flush=True)
sys.stdin.read()
"""


def test_a_live_folder_stays_and_that_of_a_dead_server_goes(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert owner.stdout is not None
    files = Path(owner.stdout.readline().strip())
    remove_leftovers(tmp_path)
    assert (files / "model.so").read_bytes() == b"model"
    owner.kill()
    owner.communicate()
    assert files.is_dir()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_containers_server_is_no_leftover(tmp_path: Path) -> None:
    """Its process has a number that is nobody's here."""
    with open("/proc/sys/kernel/pid_max", encoding="ascii") as file:
        nobody = int(file.read()) - 1
    foreign = SessionFolder(tmp_path)
    named = tmp_path / f"enet-tvm-session-{nobody}-x"
    foreign.files.parent.rename(named)
    remove_leftovers(tmp_path)
    assert (named / "files").is_dir()
    foreign.remove()
    remove_leftovers(tmp_path)
    assert not named.exists()


def test_removed_with_everything_in_it(tmp_path: Path) -> None:
    folder = SessionFolder(tmp_path)
    (folder.files / "deep").mkdir()
    (folder.files / "deep" / "a").write_text("x")
    folder.remove()
    assert not list(tmp_path.iterdir())


def test_folders_made_while_others_clear_up(tmp_path: Path) -> None:
    stop = threading.Event()

    def clear_up() -> None:
        while not stop.is_set():
            remove_leftovers(tmp_path)

    sweeper = threading.Thread(target=clear_up)
    sweeper.start()
    try:
        for _ in range(300):
            folder = SessionFolder(tmp_path)
            (folder.files / "a").write_text("x")
            assert (folder.files / "a").read_text() == "x"
            folder.remove()
    finally:
        stop.set()
        sweeper.join()


def test_links_are_not_followed(tmp_path: Path) -> None:
    """In a folder for everybody, anybody may have put one."""
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    victim.mkdir()
    (shared / "enet-tvm-session-link").symlink_to(victim)
    (shared / "enet-tvm-session-file").write_text("no folder")
    inside = shared / "enet-tvm-session-inside"
    inside.mkdir()
    (inside / "lock").symlink_to(victim / "made")
    remove_leftovers(shared)
    assert victim.is_dir()
    assert not list(victim.iterdir())


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        SessionFolder(tmp_path / "missing")
