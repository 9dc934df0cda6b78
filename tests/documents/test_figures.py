"""The figures that the Markdown files give are those of the files and the code that they are of.

What only a measurement can tell, the milliseconds of the README, has its source in `docs/latency.json`, instructions of ARM in
`docs/arm.json`.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from markdown_files import ROOT, Document
from scripts import load_script

from enet_tvm.agreement import PICTURES, PICTURES_MIOU
from enet_tvm.artifact import Precision, read_manifest
from enet_tvm.compiler.tuning_log import read_log
from enet_tvm.data.camvid import CamVid
from enet_tvm.data.rides import training_data
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import weights_predictor
from enet_tvm.files import hashed_name, sha256
from enet_tvm.networks import read_info
from enet_tvm.size import Size
from enet_tvm.targets import known_targets, load_target
from enet_tvm.training.recipe import Recipe, load_recipe

README, CHANGELOG, CARD, TRIED = map(Document, ("README.md", "CHANGELOG.md", "model/enet-camvid.md", "model/README.md"))
ARM = Document("docs/arm.md")
NUMBERS = {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12}
CAMVID = Path(os.environ.get("ENET_TVM_CAMVID", ROOT.parent / "shared/camvid"))
LOGS = sorted((ROOT / "tuning_logs").glob("*/*/log.json"))


def said(document: Document, pattern: str) -> tuple[str, ...]:
    """What a document says at the groups of a pattern, which it must have once; line breaks are blanks."""
    found = re.findall(pattern, " ".join(document.text.split()))
    assert len(found) == 1, f"{document.name} says /{pattern}/ {len(found)} times; this test holds what it says to its source"
    return found[0] if isinstance(found[0], tuple) else (found[0],)


def table(document: Document, *headings: str) -> list[dict[str, str]]:
    """The rows of the one table that has these headings; stars are left out."""
    tables = [table for table in document.tables() if set(headings) <= set(table[0])]
    assert len(tables) == 1
    heading, *rows = [[cell.replace("**", "") for cell in row] for row in tables[0]]
    return [dict(zip(heading, row, strict=True)) for row in rows]


SHIPPED, TWIN = (ROOT / f"model/{name}.safetensors" for name in ("enet-camvid", "held-out/enet-camvid-streets"))


def notes(weights: Path = SHIPPED) -> dict[str, Any]:
    return read_info(weights).notes


def held_out() -> dict[str, dict[str, Any]]:
    """What the shipped weights say of their twin on each fold's ride, by the fold."""
    figures = notes()["held_out"]["figures"]
    folds = script("held_out_rides").FOLDS
    assert len(figures) == len(folds)
    return {fold: figures[f"{ride} of train"] for fold, (ride, _) in folds.items()}


def test_figures_of_the_weights():
    assert notes()["held_out"]["weights"] == str(TWIN.relative_to(ROOT))
    (row,) = [row for row in table(TRIED, "recipe", "A", "B") if TWIN.name in row[""]]
    for fold, figures in held_out().items():
        assert row[fold] == f"{figures['miou']:.3f}"
        (classes,) = [row for row in table(TRIED, "fold", "sky") if row["fold"] == f"{fold}, with it"]
        shares = {name: f"{100 * one['iou']:.1f}" for name, one in figures["classes"].items()}
        assert {name: share for name, share in classes.items() if name != "fold"} == shares
    weights = {fold: weight for fold, (_, weight) in script("held_out_rides").FOLDS.items()}
    assert row["score"] == f"{sum(weights[fold] * figures['miou'] for fold, figures in held_out().items()):.3f}"


def test_history_of_the_weights():
    """In the changelog, the card and the table of recipes."""
    name, *epochs = said(
        CHANGELOG, r"in `model/`, of the recipe `([\w-]+)`: (\d+) epochs with two rides held out, (\d+) more on all"
    )
    for path, count in zip((TWIN, SHIPPED), epochs, strict=True):
        assert load_recipe(name, [f"epochs={count}"]) == Recipe.model_validate(notes(path)["recipe"])
        assert notes(path)["epoch"] == int(count)
        assert "logit_bias" in notes(path)
    assert said(CARD, rf"1\. (\d+) epochs of `\S+/{name}.toml`.*?3\. (\d+) epochs of the same from there") == tuple(epochs)
    assert notes()["started_from"] == hashed_name(TWIN)
    assert notes()["data"]["train"] == "train,val/5"
    rows = {row["epochs"] for row in table(TRIED, "recipe", "A", "B") if row["recipe"].startswith(f"`{name}`")}
    assert {epochs[0], f"{epochs[1]} more"} <= rows
    means = said(CHANGELOG, r"on the held-out rides it reaches a mean IoU of ([\d.]+\d) and ([\d.]+\d)")
    assert means == tuple(f"{figures['miou']:.3f}" for figures in held_out().values())


def test_parameters():
    (in_card,) = said(CARD, r"`enet`, ([\d,]+) parameters")
    assert said(TRIED, r"is ENet \(([\d,]+) parameters\)") == (in_card,)


def test_limitations_are_those_of_the_figures():
    """What the card says in words holds for the figures above it."""
    rides = [{name for name, one in figures["classes"].items() if one["iou"] < 0.5} for figures in held_out().values()]
    both, one = said(
        CARD, r"trained on, (.*?) are covered by less than half \(IoU\),.*? and (.*?) by less than half on one of the two"
    )
    plural = {"poles": "pole", "signs": "sign", "fences": "fence", "pedestrians": "pedestrian", "bicyclists": "bicyclist"}
    plural |= {"buildings": "building", "pavement": "pavement", "trees": "tree"}
    assert {plural[word] for word in re.split(r", | and ", both)} == rides[0] & rides[1]
    assert {plural[word] for word in re.split(r", | and ", one)} == rides[0] ^ rides[1]
    assert "bicyclists of 0006R0 hardly at all" in " ".join(CARD.text.split())
    assert held_out()["A"]["classes"]["bicyclist"]["iou"] < 0.02


def test_the_recipe_of_the_card_is_that_of_the_files():
    streets = load_recipe("streets")
    window, batch, rate, weight = said(
        CARD, r"windows of (\S+), batches of (\d+), AdamW, a learning rate of (\S+) with .*?weights 1 / ln\(([\d.]+) \+ p\)"
    )
    assert (window, int(batch)) == (str(streets.crop_size), streets.batch_size)
    assert (float(rate), float(weight)) == (streets.optimiser.learning_rate, streets.loss.class_weight_constant)
    low, high = said(CARD, r"scales from ([\d.]+) to ([\d.]+);")
    assert (float(low), float(high)) == streets.augmentation.scale
    assert said(CARD, r"and (\d+) drawn streets \(") == (str(streets.drawn_streets),)
    small = load_recipe("small-objects")
    assert said(TRIED, r"`small-objects`: (\d+) drawn streets join") == (str(small.drawn_streets),)


def test_pictures_of_the_calibration():
    calibration = json.loads((ROOT / "model/enet-camvid.calibration.json").read_text())
    assert said(CARD, r"every layer's output on (\d+) training") == (str(calibration["pictures"]),)
    assert said(README, r"calibrated on (\d+) training") == (str(calibration["pictures"]),)


def test_launches(compiled_enet):
    assert said(README, r"A forward pass is (\d+) kernel launches") == (
        str(read_manifest(compiled_enet.directory).kernel_count),
    )


def test_what_tuning_finds():
    """Per cent of the time before, from each log."""
    gains: dict[str, list[float]] = {}
    for path in LOGS:
        log = read_log(path.parent)
        gains.setdefault(log.workload.dtype, []).append(100 * (1 - log.after_ms / log.before_ms))
    most, low, high = map(int, said(README, r"tuning finds up to another (\d+) % beside .*?, in int8 (\d+) to (\d+) %"))
    others = [gain for dtype, some in gains.items() if dtype != "int8" for gain in some]
    assert round(max(others)) == most
    assert (round(min(gains["int8"])), round(max(gains["int8"]))) == (low, high)


def test_what_was_tuned():
    rows = table(README, "size", "threads", "enet-tvm", "torch.compile")
    sizes = {row["size"] for row in rows}
    one, short = said(
        README,
        r"Float32 was tuned for two threads at all these sizes and for one at (\S+), bfloat16 and int8 for two at (.*?) \(",
    )
    tuned = {
        (str(Size(log.workload.width, log.workload.height)), log.workload.threads, log.workload.dtype) for log in logs_of_zen4()
    }
    wanted = {(size, 2, "float32") for size in sizes} | {(one, 1, "float32")}
    wanted |= {(size, 2, dtype) for size in short.split(" and ") for dtype in ("bfloat16", "int8")}
    assert tuned == wanted


def logs_of_zen4() -> list:
    """The logs that the processor of the README's table takes: its own, and those of what it is one of."""
    return [read_log(path.parent) for path in LOGS if path.parts[-3] in ("zen4", "x86-64-v4")]


def test_targets():
    gpus = {name for name in known_targets() if load_target(name).gpu is not None}
    (listed,) = said(README, r"Targets: ((?:`[\w-]+`,? ?)+)\. The kernels")
    assert set(re.findall(r"`([\w-]+)`", listed)) == gpus
    assert said(CHANGELOG, r"GPUs without a GPU: (\w+) targets")[0] in {word for word, n in NUMBERS.items() if n == len(gpus)}
    for name in re.findall(r"Targets? `([\w-]+)`", CHANGELOG.text):
        assert name in known_targets()


def test_ptx_of_the_jetson():
    gpu = load_target("jetson-tx1").gpu
    assert gpu is not None
    version, arch = said(README, r"aarch64 library with PTX ([\d.]+) for (sm_\d+)")
    assert (version, arch) == (gpu.ptx, gpu.arch)


def test_functions_of_the_cuda_runtime():
    source = (ROOT / "enet_tvm/device_bundle/csrc/cudart_shim.c").read_text()
    exported = re.findall(r"^(?!static)\w.*\bcuda[A-Z]\w*\(", source, re.MULTILINE)
    assert said(Document("docs/boards.md"), r"the (\d+) functions that TVM imports") == (str(len(exported)),)


def test_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = said(README, r"with Python ([\d.]+) or later")
    assert project["requires-python"] == f">={python}"
    toolkit = [line for line in project["optional-dependencies"]["cuda"] if line.startswith("nvidia-cuda-")]
    cuda = {re.search(r"-cu(\d+)==", line)[1] for line in toolkit}
    assert set(said(README, r"NVRTC and ptxas of CUDA (\d+)\)")) == cuda


def test_pixels_of_the_val_pictures():
    pictures, size, pixels = (
        *said(README, r"on CamVid's (\d+) val pictures at (\d+x\d+)"),
        *said(README, r"all but \d+ of ([\d,]+)"),
    )
    width, height = map(int, size.split("x"))
    assert int(pictures) * width * height == int(pixels.replace(",", ""))
    assert said(CARD, r"(\d+) val pictures\.") == (pictures,)
    assert said(TRIED, r"the (\d+) training pictures at 480x360") == said(CARD, r"layout: (\d+) training pictures")


@pytest.mark.camvid
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_pictures_of_camvid():
    for split, pattern in {"train": r"layout: (\d+) training", "val": r"(\d+) val pictures\."}.items():
        assert said(CARD, pattern) == (str(len(CamVid(CAMVID, split))),)
    trained_on = training_data(str(CAMVID), notes()["data"]["train"]).train
    assert said(CARD, r"every fifth of the second, (\d+) in all") == (str(len(trained_on)),)


@pytest.mark.slow
@pytest.mark.camvid
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_the_weights_have_the_figures_on_val_that_are_said():
    """By which data types are told apart, not weights."""
    samples, model = CamVid(CAMVID, "val"), weights_predictor(SHIPPED, 1)
    figures = evaluate(model.forward, samples, samples.class_set, model.mean, model.std, samples.paper_size)
    for row in (row for row in accuracy()["rows"] if row["split"] == "val"):
        assert row["miou_reference"] == pytest.approx(figures.miou, abs=1e-4)
    assert float(*said(CARD, r"They reach ([\d.]+) there")) == pytest.approx(figures.miou, abs=6e-4)


@pytest.mark.slow
@pytest.mark.camvid
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_the_twin_has_the_figures_of_the_notes():
    model = weights_predictor(TWIN, 1)
    for ride, known in notes()["held_out"]["figures"].items():
        samples = training_data(str(CAMVID), "train", [ride.split()[0]]).val
        figures = evaluate(model.forward, samples, samples.class_set, model.mean, model.std, samples.paper_size).to_dict()
        assert figures["pixels"] == known["pixels"]
        assert figures["miou"] == pytest.approx(known["miou"], abs=1e-4)
        for name, one in known["classes"].items():
            assert figures["classes"][name] == pytest.approx(one, abs=3e-4)


@pytest.mark.parametrize("column", ["torch.compile", "MNN"])
def test_ratios_of_the_tables(column: str):
    """Their ratios are those of their times, as far as these are written."""
    ours = ("size", "threads", "enet-tvm", "limit", "of the best peer", "of the limit")
    for row in table(README, "size", "threads", "enet-tvm", column):
        peers = [float(value) for name, value in row.items() if name not in ours]
        for ratio, other in {"of the best peer": min(peers), "of the limit": float(row["limit"])}.items():
            time = float(row["enet-tvm"])
            assert (time - 0.05) / (other + 0.05) - 0.005 <= float(row[ratio]) <= (time + 0.05) / (other - 0.05) + 0.005


def script(name: str) -> ModuleType:
    """A script of `benchmarks`."""
    return load_script(ROOT / f"benchmarks/{name}.py")


@pytest.mark.parametrize("kind", ["latency", "peers"])
def test_times_of_the_tables(kind: str):
    """Where this fails, `python benchmarks/readme_table.py --kind KIND` mends the README."""
    made = script("readme_table")
    kept = json.loads((ROOT / f"docs/{kind}.json").read_text())
    runners = made.COLUMNS[made.Kind(kind)]
    assert made.replace_table(README.text, made.table(kept, runners)) == README.text
    assert [list(row["median_ms"]) for row in kept["rows"]] == [list(runners)] * len(kept["rows"])


def test_times_in_shorter_numbers():
    """Where this fails, `python benchmarks/readme_table.py --kind precisions` mends the README."""
    made = script("readme_table")
    kept = json.loads((ROOT / "docs/precisions.json").read_text())
    assert made.replace_table(README.text, made.table_of_precisions(kept)) == README.text


def accuracy() -> dict[str, Any]:
    return json.loads((ROOT / "docs/accuracy.json").read_text())


def test_accuracy_of_data_types():
    """Where this fails, `python benchmarks/accuracy.py` mends the README, or measures what is not of the shipped weights."""
    kept = accuracy()
    assert script("readme_table").replace_table(README.text, script("accuracy").table(kept)) == README.text
    assert kept["weights"] == sha256(SHIPPED)
    assert {row["dtype"] for row in kept["rows"]} == set(get_args(Precision))
    pictures, size = said(README, r"on CamVid's (\d+) val pictures at (\d+x\d+)")
    assert kept["size"] == size
    for row in kept["rows"]:
        split, _, step = row["split"].partition("/")
        assert (split, row["pictures"]) == ("val", math.ceil(int(pictures) / int(step or 1)))
        assert 1 - row["differing"] / row["pixels"] >= PICTURES[row["dtype"]]
        assert abs(row["miou"] - row["miou_reference"]) <= PICTURES_MIOU[row["dtype"]]


def arm_rows() -> dict[tuple[str, str], dict[str, Any]]:
    """What was counted of ARM, by target and data type."""
    rows = json.loads((ROOT / "docs/arm.json").read_text())["rows"]
    return {(row["target"], row["dtype"]): row for row in rows}


def test_instructions_of_the_tables():
    """Where this fails, `python benchmarks/arm_table.py` mends README.md and docs/arm.md."""
    made = script("arm_table")
    kept = json.loads((ROOT / "docs/arm.json").read_text())
    for document, table_of in ((README, made.table), (ARM, made.kernel_table)):
        assert script("readme_table").replace_table(document.text, table_of(kept)) == document.text
    rows = table(README, "target", "million instructions", "ours / the best peer's")
    assert [(row["target"].strip("`"), row["data type"]) for row in rows] == [(r["target"], r["dtype"]) for r in kept["rows"]]
    assert {"rpi3", "rpi4", "rpi5", "graviton3"} == {row["target"] for row in kept["rows"]}
    for row in kept["rows"]:
        assert sum(row["kinds"].values()) == row["instructions"]["ours"]
        kernels = [group["instructions"] for group in row["kernels"].values()]
        assert 0.98 * row["instructions"]["ours"] < sum(kernels) < row["instructions"]["ours"]
        assert all(group["instructions"] == sum(group["kinds"].values()) for group in row["kernels"].values())


def test_goals_on_arm_that_hold():
    """As docs/arm.md says: all in float16, and in float32 the multiply-adds, and the port on the Cortex-A72 and A76."""
    rows = arm_rows()
    for (target, dtype), row in rows.items():
        if dtype in ("float32", "float16"):
            assert row["kinds"]["fma"] > 0.6 * row["instructions"]["ours"]
            assert min(judged(row, "busy")) > 0.8 or target not in ("rpi4", "rpi5")
        if dtype == "float16":
            assert row["instructions"]["ours"] <= 0.8 * row["instructions"]["ncnn"]
    (ratio,) = said(ARM, r"In float16 all of them hold \(`rpi5` takes ([\d.]+) of ncnn's instructions\)")
    counts = rows["rpi5", "float16"]["instructions"]
    assert ratio == f"{counts['ours'] / counts['ncnn']:.2f}"


def judged(row: dict[str, Any], what: str) -> list[float]:
    """Shares of the time of the busiest port, in 1x1 and 3x3 convolutions."""
    return [share for name in ("1x1", "3x3, Winograd", "3x3") for share in row["kernels"].get(name, {}).get(what, [])]


def test_what_binds_in_float32_on_arm():
    rows = arm_rows()
    row = rows["rpi4", "float32"]
    ours, theirs = row["instructions"]["ours"] / 1e6, row["instructions"]["ncnn"] / 1e6
    fma, kernels = row["kinds"]["fma"] / 1e6, row["kernels"]
    (ratio,) = said(ARM, r"float32, ([\d.]+) of ncnn's instructions instead of 0\.6\*\* on `rpi4`, `rpi5` and `graviton3`")
    (in_order,) = said(ARM, r"so that the ([\d.]+) of them that ours take there")
    counts = {target: row["instructions"] for (target, dtype), row in rows.items() if dtype == "float32"}
    ratios = {target: f"{count['ours'] / count['ncnn']:.2f}" for target, count in counts.items()}
    assert ratios == {"rpi3": in_order, **dict.fromkeys(("rpi4", "rpi5", "graviton3"), ratio)}
    assert said(
        ARM,
        r"`rpi4`'s ([\d.]+) million instructions ([\d.]+) are multiply-adds, and 0\.6 of ncnn's ([\d.]+) are ([\d.]+): (\d+) %",
    ) == (*(f"{ours:.1f}", f"{fma:.1f}", f"{theirs:.1f}", f"{0.6 * theirs:.1f}", f"{100 * fma / (0.6 * theirs):.0f}"),)
    hottest = kernels["1x1"]["largest"]["hottest"]
    assert said(ARM, r"largest 1x1 convolution has (\d+) in (\d+) instructions, which is (\d+) %") == (
        *(str(hottest["fma"]), str(hottest["instructions"]), f"{100 * hottest['fma'] / hottest['instructions']:.0f}"),
    )
    last = kernels["transposed"]["largest"]
    assert last["name"] == "conv2d_transpose_2x2_16to11_320x192"
    loop = (str(last["hottest"]["fma"]), str(last["hottest"]["instructions"]))
    assert said(ARM, r"the last layer, whose loop has (\d+) in (\d+)\.") == loop
    shares = {name: group["kinds"]["fma"] / group["instructions"] for name, group in kernels.items()}
    assert said(
        ARM,
        r"1x1 convolutions have (\d+) % of all multiply-adds, .*? 3x3 convolutions have (\d+) % .*? transposed .*? (\d+) %",
    ) == (
        f"{100 * kernels['1x1']['kinds']['fma'] / row['kinds']['fma']:.0f}",
        *(f"{100 * shares[name]:.0f}" for name in ("3x3, Winograd", "transposed")),
    )


def test_what_binds_elsewhere_on_arm():
    rows = arm_rows()
    slow = rows["rpi3", "float32"]
    bounds = [100 * share for what in ("busy", "without_loads") for share in (min(judged(slow, what)), max(judged(slow, what)))]
    pattern = r"port of `rpi3`, (\d+) to (\d+) % busy\..*?keeps the port busy for (\d+) to (\d+) %"
    assert said(ARM, pattern) == tuple(f"{bound:.0f}" for bound in bounds)
    short = [rows["graviton3", "bfloat16"], rows["graviton3", "int8"], rows["rpi5", "int8"]]
    shares = said(ARM, r"bfloat16 and int8, (\d+) % and (\d+) % of multiply-adds on `graviton3`, and (\d+) % in int8 on `rpi5`")
    assert shares == tuple(f"{100 * row['kinds']['fma'] / row['instructions']['ours']:.0f}" for row in short)
    one = short[1]["kernels"]["1x1"]
    assert said(ARM, r"that leaves (\d+) %") == (f"{100 * one['kinds']['fma'] / one['instructions']:.0f}",)
    (least,) = said(ARM, r"the same vector units busy, (\d+) % of the time or more")
    assert least == f"{100 * min(share for row in short for share in judged(row, 'busy')):.0f}"
