"""Weights that a training starts from: all layers of a network of the same classes, all but the last one else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.transforms import MEAN, STD
from enet_tvm.errors import UserError
from enet_tvm.files import hashed_name
from enet_tvm.networks import SegmentationNetwork
from enet_tvm.networks.importing import FoundNetwork, find_network
from enet_tvm.places import find_file


@dataclass(frozen=True)
class Start:
    """A network to train and where its weights come from.

    Attributes
    ----------
    network : SegmentationNetwork
        The network, with the outputs that are wanted and in the variant of the weights.
    anew : tuple of str
        Names of the layers that start from random weights.
    name : str
        Name of the file with the beginning of its SHA-256, for the notes of the weights that become of these.
    notes : tuple of str
        Further sentences on how the weights were read.
    """

    network: SegmentationNetwork
    anew: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def variant(self) -> dict[str, Any]:
        """The variant of the network, as `SegmentationNetwork.variant_json` gives it."""
        return self.network.variant_json()

    def sentence(self, weights: str | Path) -> str:
        """Return what was taken of the weights."""
        count = sum(1 for _ in self.network.named_children())
        started = "every layer" if not self.anew else f"{count - len(self.anew)} of {count} layers"
        rest = f"; {', '.join(self.anew)} starts anew" if self.anew else ""
        return "; ".join([f"starting from {weights}: {started} carried over{rest}", *self.notes])


def read_start(weights: str | Path, network: str, class_set: ClassSet) -> Start:
    """Return a network of the wanted classes that starts from given weights.

    Layers are carried over by name and shape. The last one starts from the random weights of PyTorch's present seed when the
    weights are of other classes, as many as these may be; where the file does not name its classes, when it has more or fewer.

    Parameters
    ----------
    weights : str or Path
        A weights file, or whatever `enet_tvm.networks.importing.find_network` reads.
    network : str
        Name of the network that is to be trained.
    class_set : ClassSet
        The classes that it is to tell apart.

    Raises
    ------
    UserError
        When the file is missing, broken, of another network, or holds what is no number.
    """
    found = find_network(weights)
    if found.definition.name != network:
        raise UserError(
            f"{weights} is {found.definition.name} with {found.outputs} outputs, and {network} with the {len(class_set)} "
            f"classes of {class_set.name} is to be trained; start from weights of those"
        )
    given = found.build(found.void_of(class_set))
    made = found.definition.new(len(class_set), given.variant_json())
    head = found.definition.head.layer
    same = given.num_classes == len(class_set) and (found.info is None or found.info.classes == class_set.names)
    carried = {key: value for key, value in given.state_dict().items() if same or key.split(".")[0] != head}
    made.load_state_dict(made.state_dict() | carried)
    return Start(made, () if same else (head,), hashed_name(find_file(weights)), tuple(_notes(found, class_set, same)))


def _notes(found: FoundNetwork, class_set: ClassSet, same: bool) -> list[str]:
    said = found.notes()
    if found.info is None and same:
        said.append(f"its {len(class_set)} outputs are taken for the classes of {class_set.name}, in their order")
    zero_one = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    normalised = (found.info.mean, found.info.std) if found.info else zero_one if found.public else None
    if normalised is not None and normalised != (MEAN, STD):
        said.append(
            f"it was trained on pictures of mean {normalised[0]} and std {normalised[1]}, and is now given {MEAN}, {STD}"
        )
    return said
