"""What each data type costs in accuracy, on labelled pictures: labels that are PyTorch's, and mean IoU beside PyTorch's.

    python benchmarks/accuracy.py native:float32 --data camvid               # on this machine
    python benchmarks/accuracy.py rpi5:int8 --data camvid                    # on an emulated processor: no board is needed
    python benchmarks/accuracy.py graviton3:bfloat16 --data camvid --split val/9  # every ninth picture
    python benchmarks/accuracy.py                                            # writes the README's table again

`docs/accuracy.json` keeps the figures of the table. Rows of the same weights stay until they are measured again; those of other
weights go. An ARM target is run by the bundle's server on qemu's user mode, behind a tracker, as a board would be; that takes
seconds for a picture in int8, and up to a minute in bfloat16. Emulation rounds as the processor does; its times mean nothing.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from counting.board_server import board_server
from counting.emulator import device_builder
from readme_table import ROOT, write_table
from rich.console import Console
from rich.progress import track

from enet_tvm.artifact import LIBRARY_NAME, Precision
from enet_tvm.bench.machine.description import processor
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.workload import Workload
from enet_tvm.data.rides import judged_data
from enet_tvm.errors import UserError
from enet_tvm.evaluation.parity import load_reference, verify
from enet_tvm.files import read_json, sha256, write_json
from enet_tvm.machine import architecture
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.rpc.engine import DeviceSegmenter
from enet_tvm.runtime import Segmenter
from enet_tvm.size import Size, parse_size
from enet_tvm.targets import TargetSpec, load_target

HEADINGS = ("data type", "computed on", "pictures", "labels that are PyTorch's", "mIoU", "of PyTorch", "library")
_SESSION_SECONDS = 6 * 3600.0
_PICTURE_SECONDS = 600.0
_REMEDY = "give a file that this made"
_COUNTED = 1000
"""Labels that differ are counted below this, and told as a share above it."""


def main(
    case: Annotated[list[str] | None, typer.Argument(metavar="[TARGET:DTYPE ...]", help="What to measure.")] = None,
    data: Annotated[str | None, typer.Option(envvar="ENET_TVM_CAMVID", metavar="DIR", help="CamVid.")] = None,
    split: Annotated[str, typer.Option(metavar="NAME[/N]", help="Split of it; val/9 is every ninth picture of val.")] = "val",
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the network's input.")] = "480x360",
    figures: Annotated[Path, typer.Option(help="Where the figures are kept.")] = ROOT / "docs/accuracy.json",
    readme: Annotated[Path, typer.Option(help="Text whose table is replaced.")] = ROOT / "README.md",
) -> None:
    """Measure what data types cost in accuracy, and write the README's table of it."""
    console = Console(soft_wrap=True, highlight=False, stderr=True)
    try:
        cases, wanted = [parse_case(text) for text in case or []], parse_size(size)
        if cases and data is None:
            raise UserError("no pictures were given; give --data with the directory of CamVid")
        origin = {"weights": sha256(DEFAULT_WEIGHTS), "size": str(wanted)}
        for spec, dtype in cases:
            row = measure(spec, dtype, wanted, str(data), split, console)
            write_json(figures, merged(read_json(figures, _REMEDY) if figures.exists() else {}, origin, row))
    except (UserError, device_builder().UnavailableError) as error:
        console.print(f"error: {error}", markup=False)
        raise typer.Exit(2) from error
    write_table(lambda: None, table, figures, readme)


def parse_case(text: str) -> tuple[TargetSpec, Precision]:
    """Return the target and the data type that ``TARGET:DTYPE`` names.

    Raises
    ------
    UserError
        When it names none, or a target that can neither be run here nor emulated.
    """
    name, _, dtype = text.partition(":")
    if dtype not in get_args(Precision):
        raise UserError(
            f"'{text}' names no data type; give TARGET:DTYPE, such as rpi5:int8, of {', '.join(get_args(Precision))}"
        )
    spec = load_target(name)
    if spec.gpu is not None or not (name == "native" or is_emulated(spec)):
        raise UserError(f"{name} can be run neither here nor by the emulator; give native, or a 64-bit ARM processor")
    return spec, cast(Precision, dtype)


def is_emulated(spec: TargetSpec) -> bool:
    """Whether a target is run on the emulator, not on this machine."""
    return spec.triple.startswith("aarch64") and architecture() != "aarch64"


def measure(spec: TargetSpec, dtype: Precision, size: Size, data: str, split: str, console: Console) -> dict[str, Any]:
    """Return a row: how a data type does on a target's processor."""
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder, "artifact")
        workload = Workload(DEFAULT_WEIGHTS, size, spec, threads=1, dtype=dtype)
        compile_artifact(CompileRequest(workload, command="benchmarks/accuracy.py"), artifact)
        with _opened(artifact, spec) as segmenter:
            samples = judged_data(data, split)
            name = f"{spec.name}, {dtype}"
            pictures = track(samples, name, total=len(samples), console=console, disable=not console.is_terminal)
            report = verify(segmenter, load_reference(segmenter), pictures, samples.class_set)
        return {
            "target": spec.name,
            "dtype": dtype,
            "processor": "emulated" if is_emulated(spec) else processor(),
            "split": split,
            "pictures": report.pictures,
            "pixels": report.pixels,
            "differing": report.differing_pixels,
            "miou": report.miou,
            "miou_reference": report.miou_reference,
            "library_bytes": (artifact / LIBRARY_NAME).stat().st_size,
        }


@contextlib.contextmanager
def _opened(artifact: Path, spec: TargetSpec) -> Iterator[Segmenter]:
    if not is_emulated(spec):
        with Segmenter.load(artifact) as segmenter:
            yield segmenter
        return
    with board_server(spec) as tracker:
        limits = {"session_seconds": _SESSION_SECONDS, "timeout": _PICTURE_SECONDS}
        with DeviceSegmenter.open(artifact, tracker, spec.rpc_key, threads=1, **limits) as segmenter:
            yield segmenter


def merged(old: dict[str, Any], origin: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a row with those of before that are of the same weights and size, and not of the same case."""
    same = all(old.get(name) == value for name, value in origin.items())
    rows = [row for row in old.get("rows", ()) if same and (row["target"], row["dtype"]) != (new["target"], new["dtype"])]
    rows = sorted([*rows, new], key=lambda row: (get_args(Precision).index(row["dtype"]), row["target"]))
    return {**origin, "rows": rows}


def table(kept: dict[str, Any]) -> str:
    """Return the table as Markdown, without a line break at its end."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|" + "--:|" * (len(HEADINGS) - 2)]
    for row in kept["rows"]:
        differing, pixels = row["differing"], row["pixels"]
        same = f"all but {differing} of {pixels:,}" if differing < _COUNTED else f"{100 * (1 - differing / pixels):.2f} %"
        cells = [
            *(row["dtype"], f"`{row['target']}`, {row['processor']}", str(row["pictures"]), same),
            *(f"{row[name]:.4f}" for name in ("miou", "miou_reference")),
            f"{row['library_bytes'] / 1e6:.1f} MB",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
