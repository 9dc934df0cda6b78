"""What a forward pass costs on an ARM processor, without a board: instructions executed, and a model of the hot loops.

    python benchmarks/arm.py --target rpi4 --size 320x192 --peer ncnn --peer mnn --peer litert
    python benchmarks/arm.py --target rpi5 --dtype float16 --size 320x192 --peer ncnn     # ncnn in the same type
    python benchmarks/arm.py --target rpi4 --size 320x192 --peer all
    python benchmarks/arm.py --target rpi5 --dtype float32 --dtype float16    # of several, those that the processor computes in
    python benchmarks/arm.py --artifact DIR     # what is compiled already, of any size

Instructions are counted by a plugin of qemu's user mode on one thread, those of the second pass, in which nothing starts or is
loaded any more; they are exact, and no milliseconds. The hot loops are given to llvm-mca, LLVM's model of a
processor's pipeline, which takes all loads from the first cache. What is counted is compared with PyTorch in the same run, and
a peer, which is given the portable form, with that form in PyTorch too: a peer that computes something else is an error.
Needs Debian 12 (qemu and LLVM are unpacked into the cache, nothing is installed). Peers are downloaded for the device; what
converts the network for them is needed here: pip install 'enet-tvm[ncnn]', [mnn], [litert], [executorch], or [peers] for all.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import numpy as np
import torch
import typer
from counting.board_bundle import unpacked_bundle
from counting.board_files import board_root
from counting.emulator import ArmTools, arm_tools, device_builder, processor_of
from counting.kernels import Kernel, kernels_of, read_code
from counting.peer import Given, Program
from counting.peers import PEERS
from rich.console import Console
from rich.table import Table

from enet_tvm.agreement import NOISE, PICTURES
from enet_tvm.artifact import LIBRARY_NAME, Precision, read_manifest
from enet_tvm.bench.runners import Case, RunnerMissingError
from enet_tvm.compiler.arm.cost import MODELS as COSTS
from enet_tvm.compiler.arm.cost import model_of
from enet_tvm.compiler.arm.instructions import KINDS, Block, count_kinds, hot_loops, kind
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.common.elements import dot_products
from enet_tvm.compiler.workload import Workload
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.errors import UserError
from enet_tvm.files import sha256, write_json
from enet_tvm.networks import load_network, read_info
from enet_tvm.networks.portable import portable
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.places import find_file
from enet_tvm.size import Size, parse_size
from enet_tvm.targets import TargetSpec, load_target

MODELS = ("cortex-a53", "cortex-a55", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "neoverse-v1", "neoverse-v2")


def main(
    target: Annotated[list[str] | None, typer.Option(help="Target, again for each; rpi4 by default.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Size of the picture, again for each; 160x96 by default.")] = None,
    peer: Annotated[
        list[str] | None, typer.Option(help=f"Runtime to compare with, again for each: {', '.join(PEERS)}; or all.")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="What ours and the peers compute in, again for each; float32 by default.")
    ] = None,
    artifact: Annotated[Path | None, typer.Option(help="The compiled network to count, in place of targets and sizes.")] = None,
    loops: Annotated[int, typer.Option(min=0, help="Hot loops to model.")] = 4,
    kernels: Annotated[int, typer.Option(min=0, help="Kernels to show, those of the most instructions.")] = 12,
    data: Annotated[
        str | None,
        typer.Option(envvar="ENET_TVM_CAMVID", help="What peers' int8 is calibrated on; the drawn street by default."),
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the figures to this file.")] = None,
) -> None:
    """Count the instructions of a forward pass, and model the hot loops."""
    console = Console(soft_wrap=True, highlight=False, stderr=True)
    try:
        peers = list(PEERS) if "all" in (peer or []) else (peer or [])
        cases = _cases(target, size, dtype, artifact, peers, strict="all" not in (peer or []))
        tools = arm_tools()
        found = [_measure(tools, *case, peers, artifact, loops, data) for case in cases]
    except (UserError, RunnerMissingError, device_builder().UnavailableError) as error:
        console.print(f"error: {error}")
        raise typer.Exit(2) from error
    out = Console(soft_wrap=True, highlight=False)
    for result in found:
        out.print(_counts(result))
        if result["loops"]:
            out.print(_schedules(result))
        if result["kernels"] and kernels:
            out.print(_shares(result, kernels))
    if json is not None:
        write_json(json, {"counted": "instructions of a forward pass on one thread, emulated", "results": found})


def _cases(
    targets: list[str] | None,
    sizes: list[str] | None,
    dtypes: Sequence[str] | None,
    artifact: Path | None,
    peers: Sequence[str],
    strict: bool,
) -> list[tuple[TargetSpec, Size, Precision]]:
    """Return what to count: every target at every size in each data type that it computes in, or what an artifact is for."""
    if unknown := set(peers) - PEERS.keys():
        raise UserError(f"no peer is called '{min(unknown)}'; there are {', '.join(PEERS)}, and all of them")
    if artifact is not None and (targets or sizes or dtypes):
        raise UserError("--artifact says for which target, size and data type it is; leave --target, --size and --dtype out")
    if artifact is not None:
        manifest = read_manifest(artifact)
        if manifest.hashes.weights != sha256(find_file(Path(DEFAULT_WEIGHTS))):
            raise UserError(f"{artifact} is of other weights than those shipped, whose labels it would be compared with")
        _, _, height, width = manifest.input.shape
        targets, sizes, dtypes = [manifest.target.name], [f"{width}x{height}"], [manifest.dtype]
    dtypes = dtypes or ["float32"]
    if unknown := set(dtypes) - set(get_args(Precision)):
        raise UserError(f"no data type is called '{min(unknown)}'; there are {', '.join(get_args(Precision))}")
    for name in peers if strict else ():
        if unknown := set(dtypes) - set(PEERS[name].dtypes):
            raise UserError(f"{PEERS[name].title} does not compute in {min(unknown)}; leave --peer {name} out")
    specs = [load_target(name) for name in targets or ["rpi4"]]
    for spec in specs:
        if not spec.triple.startswith("aarch64") or spec.gpu is not None:
            raise UserError(f"{spec.name} is no 64-bit ARM processor; 'enet-tvm targets' lists those, such as rpi4")
    precisions = cast(Sequence[Precision], dtypes)
    cases = [(spec, parse_size(text), dtype) for spec in specs for text in sizes or ["160x96"] for dtype in precisions]
    if len(dtypes) == 1:
        return cases  # A processor that lacks it is refused by name when it is compiled for.
    able = [(spec, size, dtype) for spec, size, dtype in cases if _computes(spec, dtype)]
    if not able:
        raise UserError(f"no target computes in {' or '.join(dtypes)}; leave one of them out")
    return able


def _computes(spec: TargetSpec, dtype: Precision) -> bool:
    """Whether a target's processor has the arithmetic of a data type."""
    return dtype == "float32" or dtype in dot_products(spec.to_tvm())


def _measure(
    tools: ArmTools,
    spec: TargetSpec,
    size: Size,
    dtype: Precision,
    peers: Sequence[str],
    artifact: Path | None,
    loops: int,
    data: str | None,
) -> dict[str, Any]:
    weights, target = find_file(Path(DEFAULT_WEIGHTS)), spec.name
    cpu = processor_of(spec)
    network, info = load_network(weights).eval(), read_info(weights)
    with tempfile.TemporaryDirectory() as folder:
        picture = SyntheticStreet(size, 1)[0][0]
        picture.save(Path(folder, "street.ppm"))
        pixels = np.asarray(picture, np.float32) / 255
        x = (pixels - np.array(info.mean, np.float32)) / np.array(info.std, np.float32)
        x = np.ascontiguousarray(x.transpose(2, 0, 1)[None])
        x.tofile(Path(folder, "street.bin"))
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
        if artifact is None:
            artifact = Path(folder, "artifact")
            workload = Workload(weights, size, spec, dtype=dtype)
            compile_artifact(CompileRequest(workload, command="benchmarks/arm.py"), artifact)
        once, twice = (_ours(tools, Path(folder), target, artifact, cpu, passes) for passes in (1, 2))
        ours, hot = _count(twice, once), hot_loops(once, twice)
        kernels = _kernels(tools, spec, kernels_of(read_code(artifact / LIBRARY_NAME), once, twice))
        entries = {"ours": ours | _agreement(np.load(Path(folder, "logits.npy")), expected)}
        if able := [name for name in peers if dtype in PEERS[name].dtypes]:
            with torch.no_grad():
                of_form = portable(network)(torch.from_numpy(x)).numpy()
            case = Case(Workload(weights, size, spec, threads=1), Path(folder), data=data)
            root = board_root(Path(folder, "root"), tools.device.root, spec.mcpu)
            for name in able:
                given = Given(tools, root, case, network, dtype, Path(folder, "street.bin"), Path(folder, f"{name}.bin"))
                program = PEERS[name].prepare(given)
                theirs = _count(_theirs(PEERS[name].title, given, program, cpu))
                logits = np.fromfile(given.logits, np.float32).reshape(expected.shape)
                entries[name] = theirs | _agreement(logits, expected) | {"form_labels": _same_labels(logits, of_form)}
                _refuse_others(PEERS[name].title, entries[name]["form_labels"], dtype)
    modelled = [
        {
            "instructions": len(loop.words),
            "share": loop.iterations * len(loop.words) / ours["instructions"],
            "kinds": dict(count_kinds([Block(1, 0, loop.words)])),
            "models": {name: dataclasses.asdict(tools.schedule(loop, name)) for name in MODELS},
        }
        for loop in hot[:loops]
    ]
    measured = {"target": target, "emulated": cpu, "size": str(size), "dtype": dtype}
    return {**measured, "entries": entries, "loops": modelled, "kernels": kernels}


def _count(blocks: Sequence[Block], before: Sequence[Block] = ()) -> dict[str, Any]:
    """Return the instructions of a pass by kind: of all blocks but for those that were executed before it."""
    kinds = count_kinds(blocks)
    kinds.subtract(count_kinds(before))
    return {"instructions": sum(kinds.values()), "kinds": {name: kinds[name] for name in KINDS}}


def _kernels(tools: ArmTools, spec: TargetSpec, kernels: Sequence[Kernel]) -> list[dict[str, Any]]:
    """Return what each kernel executes, and what LLVM's model of the target's processor says of its hottest code.

    The model is also asked of that code without its loads: where the port is then busier, these are what binds.
    """
    model = model_of(spec.mcpu) if spec.mcpu in COSTS and kernels else None
    codes = [kernel.hottest.words for kernel in kernels]
    schedules = tools.schedules(codes, model) if model else []
    bare = [[word for word in words if kind(word) != "load"] or words for words in codes]
    without = tools.schedules(bare, model) if model else []
    found = []
    for number, kernel in enumerate(kernels):
        words = kernel.hottest.words
        hottest: dict[str, Any] = {
            "instructions": len(words),
            "share": kernel.hottest.executed * len(words) / kernel.instructions,
            "kinds": dict(count_kinds([Block(1, 0, words)])),
        }
        if model is not None:
            hottest |= {"model": model, **dataclasses.asdict(schedules[number])}
            hottest["without_loads"] = dataclasses.asdict(without[number])
        found.append({"name": kernel.name, "instructions": kernel.instructions, "kinds": kernel.kinds, "hottest": hottest})
    return found


def _ours(tools: ArmTools, folder: Path, target: str, artifact: Path, cpu: str, passes: int) -> list[Block]:
    runner = unpacked_bundle(load_target(target), folder) / "enet-run"
    options = ("--runs", str(passes), "--warmup", "0", "--threads", "1", "--logits", folder / "logits.npy")
    return tools.blocks([runner, *options, artifact, folder / "street.ppm"], cpu)


def _theirs(title: str, given: Given, program: Program, cpu: str) -> list[Block]:
    """Return what a peer executes in its second pass."""
    try:
        return given.tools.blocks_before_mark(given.root, program.line, cpu, program.environment)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        said = " ".join(str(error).split())[-200:]
        raise UserError(
            f"{title} cannot be counted; leave it out, for it ended on the emulated processor with: {said}"
        ) from error


def _refuse_others(title: str, same: float, dtype: Precision) -> None:
    """Refuse a peer whose labels are not those of the form that it was given: its count would be of something else."""
    # Of a small street many pixels lie beside a border of classes, which shorter numbers move: the limit for close logits.
    least = PICTURES[dtype] if dtype == "float32" else NOISE[dtype]
    if same < least:
        raise UserError(
            f"{title} has {same:.2%} of the labels of the form that it was given, where {least:.2%} are the least, so its "
            "count means nothing; leave it out"
        )


def _same_labels(logits: np.ndarray, expected: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())


def _agreement(logits: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    return {
        "labels": _same_labels(logits, expected),
        "largest_difference": float(np.abs(logits - expected).max()),
    }


def _counts(result: dict[str, Any]) -> Table:
    what = f"{result['target']} at {result['size']} in {result['dtype']}"
    title = f"{what}: instructions of a forward pass, one thread, emulated {result['emulated']}"
    table = Table(title=title)
    for column in ("", "million", *(f"{name} %" for name in KINDS), "of PyTorch's labels", "of its form's", "ours / theirs"):
        table.add_column(column, justify="right")
    ours = result["entries"]["ours"]["instructions"]
    for name, entry in result["entries"].items():
        total = entry["instructions"]
        shares = [f"{100 * entry['kinds'][kind] / total:.0f}" for kind in KINDS]
        ratio = "" if name == "ours" else f"{ours / total:.2f}"
        form = f"{100 * entry['form_labels']:.2f} %" if "form_labels" in entry else ""
        title = PEERS[name].title if name in PEERS else name
        table.add_row(title, f"{total / 1e6:.1f}", *shares, f"{100 * entry['labels']:.2f} %", form, ratio)
    return table


def _shares(result: dict[str, Any], most: int) -> Table:
    """Return the table of kernels; the hottest code of each is modelled as it is, and without its loads."""
    table = Table(title="Kernels of ours, the hottest code of each, and the port that binds it in LLVM's model")
    table.add_column("")
    for column in ("million", "% of all", *(f"{name} %" for name in KINDS), "hottest: instructions", "FMA", "% of the kernel"):
        table.add_column(column, justify="right")
    table.add_column("port")
    table.add_column("without loads")
    for kernel in result["kernels"][:most]:
        total, hottest = kernel["instructions"], kernel["hottest"]
        shares = [f"{100 * kernel['kinds'][name] / total:.0f}" for name in KINDS]
        of_all = 100 * total / result["entries"]["ours"]["instructions"]
        code = (str(hottest["instructions"]), str(hottest["kinds"].get("fma", 0)), f"{100 * hottest['share']:.0f}")
        models = (hottest, hottest["without_loads"]) if "model" in hottest else ()
        ports = [f"{model['port']} {100 * model['busy']:.0f} %" for model in models]
        table.add_row(kernel["name"], f"{total / 1e6:.2f}", f"{of_all:.1f}", *shares, *code, *ports)
    return table


def _schedules(result: dict[str, Any]) -> Table:
    table = Table(title="Hot loops of ours in LLVM's models: cycles an iteration, the port that binds and how busy it is")
    table.add_column("")
    for loop in result["loops"]:
        fma = loop["kinds"].get("fma", 0)
        table.add_column(f"{loop['instructions']} instructions, {fma} FMA\n{100 * loop['share']:.0f} % of all", justify="right")
    for name in MODELS:
        models = [loop["models"][name] for loop in result["loops"]]
        table.add_row(name, *(f"{m['cycles']:.0f}  {m['port']} {100 * m['busy']:.0f} %" for m in models))
    return table


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "200")
    typer.run(main)
