"""Import of networks that others trained: found in a file, recognised, and given classes and a normalisation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from enet_tvm.data.class_list import spread_palette
from enet_tvm.data.classes import CAMVID, CITYSCAPES, CLASS_SETS, ClassSet
from enet_tvm.data.transforms import MEAN, STD
from enet_tvm.errors import UserError
from enet_tvm.networks.base import SegmentationNetwork
from enet_tvm.networks.checkpoint_file import StateDict, find_state_dicts, is_safetensors, read_checkpoint
from enet_tvm.networks.definition import NetworkDefinition
from enet_tvm.networks.public import NAMING, PUBLIC_VARIANT, renamed_public_state
from enet_tvm.networks.recognise import network_of_tensors
from enet_tvm.networks.table import NETWORKS
from enet_tvm.networks.weights import WeightsInfo, read_own_info
from enet_tvm.places import find_file

_PUBLIC_TITLE = "PyTorch-ENet"


@dataclass(frozen=True)
class FoundNetwork:
    """A network in a file, recognised.

    Attributes
    ----------
    path : Path
        The file.
    definition : NetworkDefinition
        Record of the network.
    public : bool
        Whether its tensors have PyTorch-ENet's names, and it so has PyTorch-ENet's normalisation and output for void.
    tensors : dict of str to Tensor
        Its tensors by the names of this project.
    outputs : int
        Number of channels of its logits.
    chosen : str
        Label of its place in the file; empty if nothing wraps it.
    others : tuple of str
        Labels of further networks in the file.
    ignored : tuple of str
        Names of the tensors beside the network.
    info : WeightsInfo or None
        Description that a file of this project holds of itself; None for files of others.
    told : dict
        Options of the variant that tensors do not show, as the caller gave them.
    """

    path: Path
    definition: NetworkDefinition
    public: bool
    tensors: dict[str, Tensor]
    outputs: int
    chosen: str = ""
    others: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    info: WeightsInfo | None = None
    told: dict[str, Any] = field(default_factory=dict)

    def void_of(self, class_set: ClassSet) -> int | None:
        """Return the output for pixels without a label, None if there is none.

        PyTorch-ENet's networks have one output more than the data set has classes: the first one for Cityscapes, the last one
        else.
        """
        if not self.public or self.outputs != len(class_set) + 1:
            return None
        return 0 if class_set.names == CITYSCAPES.names else self.outputs - 1

    def build(self, void: int | None = None) -> SegmentationNetwork:
        """Return the network in eval mode and float32, without the output `void`.

        Raises
        ------
        UserError
            When tensors are missing, too many, of another shape, or hold what is no number.
        """
        return network_of_tensors(self.definition, self.tensors, self.told, self.source, void)

    @property
    def title(self) -> str:
        """Name of the network, and of whose it is, in sentences."""
        return _PUBLIC_TITLE if self.public else self.definition.title

    @property
    def source(self) -> str:
        """The file and the place in it, for sentences."""
        return f"{self.path} ({self.chosen})" if self.chosen else str(self.path)

    def notes(self) -> list[str]:
        """Return the decisions made while reading the file, as sentences without a full stop."""
        said = []
        if self.others:
            chosen, *among = (f"'{label}'" if label else "the outermost" for label in (self.chosen, *self.others))
            said.append(f"took {chosen}, and not {', '.join(among)}")
        elif self.chosen:
            said.append(f"found under '{self.chosen}'")
        if self.ignored:
            more = f" and {len(self.ignored) - 3} more" if len(self.ignored) > 3 else ""
            said.append(f"left out what is beside the network: {', '.join(self.ignored[:3])}{more}")
        return said


@dataclass(frozen=True)
class ImportedNetwork:
    """A network with its description, ready for `enet_tvm.networks.save_network`.

    Attributes
    ----------
    network : SegmentationNetwork
        The network, in eval mode.
    info : WeightsInfo
        Name, classes, colours and normalisation of the network.
    left_out : str or None
        Sentence on an output that was left out; None if there was none.
    notes : tuple of str
        Sentences on what was decided or assumed, for people.
    """

    network: SegmentationNetwork
    info: WeightsInfo
    left_out: str | None = None
    notes: tuple[str, ...] = ()


def find_network(path: str | Path, state: str | None = None, variant: Mapping[str, Any] | None = None) -> FoundNetwork:
    """Return the network of a file of torch.save or safetensors.

    Of several, that which was averaged over the training (``ema`` and the like) is taken if it is complete.

    Parameters
    ----------
    path : str or Path
        The file; a network may be nested in dicts and its names may have prefixes.
    state : str, optional
        Label of the network to take, where there are several, or a part of the label such as ``model`` or ``ema``.
    variant : mapping, optional
        Options of the network's variants that tensors do not show.

    Raises
    ------
    UserError
        When the file is missing, broken or of another kind, holds no network known here, or several that nothing tells apart.
    """
    path = find_file(path)
    content = read_checkpoint(path)
    states = find_state_dicts(content)
    if not states:
        known = ", ".join(definition.title for definition in NETWORKS.values())
        raise UserError(
            f"{path} holds no state dict with the tensors of {known} or {_PUBLIC_TITLE}; give weights of one of those"
        )
    info = _own_info(path, content)
    told = {**(info.variant if info is not None else {}), **(variant or {})}
    chosen, rejected = _choose(path, states, state, told)
    others = tuple(other.label for other in states if other is not chosen and other.label not in rejected)
    return _recognise(path, chosen, info, told, others)


def _choose(path: Path, states: list[StateDict], wanted: str | None, told: dict[str, Any]) -> tuple[StateDict, set[str]]:
    """Return the state dict to take, and the labels of those that are not whole."""
    labels = ", ".join(f"'{state.label}'" for state in states)
    if wanted is not None:
        exact = [state for state in states if state.label == wanted]
        matching = exact or [state for state in states if wanted in state.label.split(".")]
        if len(matching) != 1:
            found = "none of them" if not matching else f"{len(matching)} of them"
            raise UserError(f"{path} holds networks under {labels}, and '{wanted}' means {found}; give one of these as --state")
        return matching[0], set()
    if len(states) == 1:
        return states[0], set()
    refused: dict[str, UserError] = {}
    for state in states:
        try:
            _recognise(path, state, None, told).build()
        except UserError as error:
            refused[state.label] = error
    whole = [state for state in states if state.label not in refused]
    if not whole:
        raise next(iter(refused.values()))
    averaged = [state for state in whole if state.averaged]
    chosen = averaged if len(averaged) == 1 else whole
    if len(chosen) != 1:
        raise UserError(
            f"{path} holds {len(whole)} networks, under {', '.join(repr(state.label) for state in whole)}; "
            f"choose one: {import_command(path, state=whole[0].label)}"
        )
    return chosen[0], set(refused)


def _recognise(
    path: Path, state: StateDict, info: WeightsInfo | None, told: dict[str, Any], others: tuple[str, ...] = ()
) -> FoundNetwork:
    public = state.naming == NAMING
    definition = NETWORKS["enet" if public else state.naming]
    source = f"{path} ({state.label})" if state.label else str(path)
    try:
        tensors = renamed_public_state(state.tensors) if public else state.tensors
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    definition.require_no_options(told, source)
    outputs = definition.head.outputs(tensors, source)
    told = {**PUBLIC_VARIANT, **told} if public else told
    return FoundNetwork(path, definition, public, tensors, outputs, state.label, others, state.ignored, info, told)


def _own_info(path: Path, content: Mapping[str, Any]) -> WeightsInfo | None:
    """Return the description in a weights file, or in a checkpoint of ``enet-tvm train``; None for files of others."""
    if is_safetensors(path):
        return read_own_info(path)
    names = content.get("classes")
    if not {"recipe", "network_name", "average"} <= content.keys() or not isinstance(names, list):
        return None
    palettes = {class_set.names: class_set.palette for class_set in CLASS_SETS.values()}
    classes = tuple(map(str, names))
    return WeightsInfo(
        network=str(content["network_name"]),
        classes=classes,
        palette=palettes.get(classes, spread_palette(len(classes))),
        mean=MEAN,
        std=STD,
        variant=content.get("variant") or {},
    )


def import_weights(
    path: str | Path,
    class_set: ClassSet | None = None,
    *,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    state: str | None = None,
    variant: Mapping[str, Any] | None = None,
) -> ImportedNetwork:
    """Return the network of a file with its description.

    Parameters
    ----------
    path : str or Path
        A file of torch.save or safetensors with a network of this project, or a PyTorch-ENet.
    class_set : ClassSet, optional
        The classes of its outputs, in this order. A PyTorch-ENet with 12 or 20 outputs is taken for CamVid's or Cityscapes',
        on which it is trained, and files of this project say theirs.
    mean, std : tuple of float, optional
        Normalisation per RGB channel of pictures scaled to 0..1; by default that of the file, else 0 and 1.
    state : str, optional
        Label of the network to take, where there are several; see `find_network`.
    variant : mapping, optional
        Options of the network's variants that tensors do not show, where they are not the paper's.

    Raises
    ------
    UserError
        When the file has no such network, is of other classes, or holds what is no number.
    """
    found = find_network(path, state, variant)
    notes = found.notes()
    if found.others and state is None:
        notes[0] += "; --state chooses another"
    if class_set is None:
        class_set = _classes_of(found)
        notes += [] if found.info else [f"taken for trained on {class_set.name}; --classes says otherwise"]
    allowed = (0, 1) if found.public else (0,)
    if found.outputs - len(class_set) not in allowed:
        void = ", or one more for void" if found.public else ""
        raise UserError(
            f"{found.path} has {found.outputs} outputs and {class_set.name} has {len(class_set)} classes{void}; "
            "give the classes that it was trained on with --classes: a number, a file with a name a line, or a class set"
        )
    void_output = found.void_of(class_set)
    network = found.build(void_output)
    said = found.info
    if said is None and (mean is None or std is None) and not found.public:
        notes.append("taken for trained on pictures scaled to 0..1 and normalised no further, unless --mean and --std say more")
    info = WeightsInfo(
        network=network.name,
        classes=class_set.names,
        palette=class_set.palette,
        mean=mean or (said.mean if said else (0.0, 0.0, 0.0)),
        std=std or (said.std if said else (1.0, 1.0, 1.0)),
        notes={"imported_from": _origin(found)},
        variant=network.variant_json(),
    )
    left_out = None if void_output is None else f"output {void_output}, for pixels without a label, was left out"
    return ImportedNetwork(network, info, left_out, tuple(notes))


def _origin(found: FoundNetwork) -> str:
    kind = f"a {'checkpoint' if found.public else 'state dict'} of {found.title}"
    return f"{found.path.name}, {kind}"


def _classes_of(found: FoundNetwork) -> ClassSet:
    """Return the classes that a file says itself, or that a public network of so many outputs has."""
    if found.info is not None and len(found.info.classes) == found.outputs:
        return ClassSet(found.path.name, found.info.classes, found.info.palette, max(255, found.outputs))
    guess = guessed_classes(found)
    if guess is None:
        raise UserError(
            f"{found.path} does not name the classes of its {found.outputs} outputs; say them with --classes {found.outputs}, "
            "or with a file of a name a line, or a class set in place of the number"
        )
    return guess


def guessed_classes(found: FoundNetwork) -> ClassSet | None:
    """Return the data set of PyTorch-ENet with so many outputs, None for other networks."""
    sets = (CAMVID, CITYSCAPES) if found.public else ()
    return next((known for known in sets if found.outputs - len(known) in (0, 1)), None)


def import_command(path: str | Path, classes: str | None = None, state: str | None = None) -> str:
    """Return the command that imports a file."""
    path = Path(path)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    output = path.with_suffix(".safetensors")
    if output == path:
        output = path.with_name(f"{path.stem}-imported.safetensors")
    options = [*(("--state", state) if state else ()), *(("--classes", classes) if classes else ())]
    return shlex.join(["enet-tvm", "import-weights", str(path), *options, "-o", str(output)])


def how_to_import(path: str | Path) -> str:
    """Return why a checkpoint that others wrote is not a weights file, and the command that makes one of it.

    Raises
    ------
    UserError
        When it cannot be imported either: that it holds no network, say.
    """
    found = find_network(path)
    guess = guessed_classes(found)
    classes = guess.name if guess is not None else None if found.info else str(found.outputs)
    return (
        f"{path} is a checkpoint of {found.title} with {found.outputs} outputs and does not say which network and classes "
        f"it is of; import it first: {import_command(path, classes)}"
    )


def parse_channels(text: str, option: str, imagenet: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return a mean or a standard deviation per channel, as people write it: one number, or three with commas.

    Parameters
    ----------
    text : str
        Text of the user; ``imagenet`` stands for ImageNet's figures.
    option : str
        Option that it was given for, ``--mean`` or ``--std``, for the sentence.
    imagenet : tuple of float
        Figures of ImageNet per RGB channel, which ``imagenet`` means.

    Raises
    ------
    UserError
        When it is no such numbers, not finite, a std of zero or less, or meant for pictures of 0..255.
    """
    if text.strip().lower() == "imagenet":
        return imagenet
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    what = "standard deviations, finite and above zero" if option == "--std" else "finite means"
    lowest = 1e-6 if option == "--std" else -1e6
    if len(values) != 3 or not all(lowest <= value <= 1e6 for value in values):
        raise UserError(f"{option} is '{text}'; give one number or three with commas, {what}, or imagenet")
    if max(values) > 2:
        raise UserError(f"{option} is '{text}', as for pictures of 0 to 255; here they are scaled to 0..1, so divide it by 255")
    return values[0], values[1], values[2]
