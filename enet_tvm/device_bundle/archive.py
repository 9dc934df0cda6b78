"""A tar file that depends on nothing but what is in it: the same content makes the same bytes, whenever and by whomever."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from enet_tvm.errors import UserError
from enet_tvm.files import atomic_file

_TIME: Final = 946684800
"""Modification time of every file in the archive, in Unix seconds: the year 2000. A zero makes some tar warn of old files."""


@dataclass(frozen=True)
class Entry:
    """A file of an archive.

    Attributes
    ----------
    content : bytes
        Content of the file.
    executable : bool
        Whether the file can be executed.
    """

    content: bytes
    executable: bool = False


def write_tar(path: str | Path, folder: str, entries: Mapping[str, Entry]) -> None:
    """Write entries as a compressed tar of one folder, sorted; `path` appears complete or stays as it was.

    Parameters
    ----------
    path : str or Path
        File to write; its name ends in ``.tar.gz`` or ``.tgz``.
    folder : str
        Name of the folder in the archive that holds all entries.
    entries : mapping of str to Entry
        Files by their path in the folder.

    Raises
    ------
    UserError
        When the name ends otherwise, or the file cannot be written.
    """
    path = Path(path)
    if not path.name.endswith((".tar.gz", ".tgz")):
        raise UserError(f"{path} is no name of a compressed tar; let it end in .tar.gz")
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file that ends in .tar.gz")
    with (
        atomic_file(path) as temporary,
        temporary.open("wb") as raw,
        # Without a name and a time in its header, which gzip would take from the file.
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for parent in sorted({parent for name in entries for parent in _parents(f"{folder}/{name}")}):
            info = _info(parent, 0o755)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
        for name, entry in sorted(entries.items()):
            info = _info(f"{folder}/{name}", 0o755 if entry.executable else 0o644)
            info.size = len(entry.content)
            tar.addfile(info, io.BytesIO(entry.content))


def _parents(name: str) -> list[str]:
    return [str(parent) for parent in Path(name).parents if str(parent) != "."]


def _info(name: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = mode, _TIME
    info.uname = info.gname = "root"
    return info
