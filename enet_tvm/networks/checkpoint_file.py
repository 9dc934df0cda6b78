"""Checkpoints that others saved: read without executing code, and searched for networks inside whatever wraps them.

What wraps a network leaves its mark on the names of the tensors: ``module.`` (DataParallel, DistributedDataParallel,
`torch.optim.swa_utils.AveragedModel`), ``_orig_mod.`` (`torch.compile`), the attribute that a Lightning module keeps it under,
``ema_model.`` beside ``online_model.``. A training's own state is a dict around it: ``state_dict``, ``model``, ``ema``. Neither
list is complete, so none is kept: a network is found by the names of its own layers, wherever they begin.
"""

from __future__ import annotations

import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from enet_tvm.errors import UserError
from enet_tvm.networks import public
from enet_tvm.networks.table import NETWORKS

_LAYERS = {name: definition.layers for name, definition in NETWORKS.items()} | {public.NAMING: public.LAYERS}
"""Pattern of the names of a network's own children, for each naming: a key of `NETWORKS`, or `public.NAMING`."""

_ENOUGH = 20
"""Least number of tensors with such names that count as a network; a lone ``classifier.weight`` does not."""

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Name parts that PyTorch's wrappers insert between a module's name and its child's."""

_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|averag\w*|shadow)(?:[._]|$)")
"""Pattern of labels of weights that were averaged over a training; these are the weights that a training is judged by."""

_NUMPY: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((np.zeros(0).__reduce__()[0], f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
"""NumPy types that trainers store their figures in; `numpy.core` is NumPy 1's name of `numpy._core`."""

_SAFE: list[Any] = [*_NUMPY, Namespace, PosixPath]
"""Types that may be unpickled beside the tensors: all of them hold values and run no code."""

_STATE_DICT = "torch.save(model.state_dict(), 'weights.pt')"
_TORCH_BEGINNINGS = (b"PK\x03\x04", b"\x80")
"""First bytes of a file of torch.save: a zip archive, or before PyTorch 1.6 a pickle."""


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network in a checkpoint.

    Attributes
    ----------
    label : str
        Place in the checkpoint: the keys that lead to it and the prefix of its tensors' names, dotted; empty if nothing wraps
        it.
    naming : str
        Naming scheme of its layers: a key of `NETWORKS`, or `enet_tvm.networks.public.NAMING`.
    tensors : dict of str to Tensor
        Its tensors by name, without the prefix of wrappers.
    ignored : tuple of str
        Names of the tensors beside it, such as the class weights of a loss.
    """

    label: str
    naming: str
    tensors: dict[str, Tensor]
    ignored: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether its label says that it was averaged over a training."""
        return bool(_AVERAGED.search(self.label.lower()))


def looks_like_checkpoint(path: str | Path) -> bool:
    """Return whether a file begins as those of torch.save do, or is safetensors."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(9)
    except OSError:
        return False
    return beginning.startswith(_TORCH_BEGINNINGS) or is_safetensors(path)


def is_safetensors(path: str | Path) -> bool:
    """Return whether a file is whole safetensors, whoever wrote it."""
    try:
        with safetensors.safe_open(path, framework="np"):
            return True
    except (safetensors.SafetensorError, OSError, ValueError):
        return False


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Return the content of a file of torch.save or of safetensors, all tensors on the CPU.

    Nothing but tensors, plain values, NumPy's numbers and ``argparse.Namespace`` is unpickled.

    Raises
    ------
    UserError
        When the file is missing, no such file, or holds what only running code would give.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
    if is_safetensors(path):
        return safetensors.torch.load_file(path)
    try:
        # By a handle: of a path, PyTorch believes the suffix.
        with open(path, "rb") as file, torch.serialization.safe_globals(_SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; check its permissions") from error
    except Exception as error:  # what a restricted unpickler raises at another kind of file has no common base
        raise UserError(f"{path} {_why_not(path, str(error))}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no state dict but a {type(content).__name__}; {_save_it()}")
    return content


def _why_not(path: Path, reason: str) -> str:
    """Return a sentence on why a file was not unpickled, and what to do."""
    if "TorchScript" in reason:
        return f"is a TorchScript program and not a checkpoint of tensors alone; {_save_it()}"
    refused = re.search(r"GLOBAL (\S+)|unsupported GLOBAL (\S+)", reason)
    if refused and b"torch.nn.modules." in path.read_bytes():
        return f"holds a whole pickled module, and reading one would run code; {_save_it()}"
    if refused:
        name = refused[1] or refused[2]
        return f"is not a checkpoint of tensors alone: reading its '{name}' would run code; {_save_it()}"
    return f"is not a checkpoint of tensors alone, or is damaged; {_save_it()}"


def _save_it() -> str:
    return f"where it was trained, save it with {_STATE_DICT}"


def find_state_dicts(content: Mapping[str, Any]) -> list[StateDict]:
    """Return every network that a checkpoint holds, outermost first."""
    return [found for path, tensors in _tensor_dicts(content) for found in _networks(path, tensors)]


def _tensor_dicts(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield each dict that holds tensors, with the keys that lead to it; a dict that is there twice counts once."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    while waiting:
        path, value = waiting.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        tensors = {}
        for key, item in items:
            if isinstance(item, Tensor):
                tensors[str(key)] = item
            elif isinstance(item, Mapping | list | tuple):
                waiting.append(((*path, str(key)), item))
        if tensors:
            yield path, tensors


def _networks(path: tuple[str, ...], tensors: dict[str, Tensor]) -> list[StateDict]:
    """Return the networks in one dict of tensors."""
    groups: dict[tuple[tuple[str, ...], str], dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for key, value in tensors.items():
        parts = key.split(".")
        for place in reversed(range(len(parts))):
            if naming := next((naming for naming, layers in _LAYERS.items() if layers.fullmatch(parts[place])), None):
                name = ".".join(part for part in parts[place:] if part not in _WRAPPERS)
                groups.setdefault((tuple(parts[:place]), naming), {})[name] = value
                break
        else:
            others[key] = value
    for group in [group for group, named in groups.items() if len(named) < _ENOUGH]:
        others |= {".".join((*group[0], name)): value for name, value in groups.pop(group).items()}
    found = []
    for (prefix, naming), named in groups.items():
        start = "".join(f"{part}." for part in prefix)
        # What lies within the network is of it, and refused if the network has no such tensor.
        within = {key.removeprefix(start): value for key, value in others.items() if key.startswith(start)}
        ignored = tuple(key for key in others if not key.startswith(start))
        found.append(StateDict(".".join((*path, *prefix)), naming, named | within, ignored))
    return found
