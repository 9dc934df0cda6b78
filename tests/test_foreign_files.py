"""Every reader of a JSON or TOML file that people or other machines give ends in its content or in one sentence."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enet_tvm.artifact import MANIFEST_NAME, read_manifest
from enet_tvm.bench.measure.latency import Latency
from enet_tvm.bench.report.changes import find_changes
from enet_tvm.bench.report.figures import load_figures
from enet_tvm.compiler.quantisation.calibration import load_calibration
from enet_tvm.compiler.tuning_log import LOG_NAME, read_log
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, WeightsInfo, read_info, save_network
from enet_tvm.targets import load_target
from enet_tvm.training.recipe import load_recipe

HASH = "0" * 64
CALIBRATION = {"weights": HASH, "pictures": 2, "source": "drawn", "ranges": {"input": [-1.0, 1.0]}}
_ENTRY = {
    "name": "tvm",
    "description": "ours",
    "latency": Latency((0.01, 0.011)).to_dict(),
    "footprint": {
        "first_ms": 80,
        "throughput": [{"streams": 2, "images_per_second": 100.0}],
        "energy": [{"meter": "VDD_IN", "joules_per_pass": 0.5}],
    },
}
FIGURES = [{"size": "64x48", "threads": 2, "entries": [_ENTRY], "versions": {"apache-tvm": "0"}, "machine": {"gpus": []}}]


@dataclass(frozen=True)
class Reader:
    """What reads a file, under which name, and a file that it takes."""

    read: Callable[[Path], Any]
    name: str
    good: Callable[[Any], str]


def _compare(path: Path) -> Any:
    figures = load_figures(path)
    return find_changes(figures, copy.deepcopy(figures)).to_dict()


def _tuning_log(_: Any) -> str:
    return next(Path(__file__).parents[1].glob("tuning_logs/*/*/log.json")).read_text()


JSON = {
    "manifest": Reader(
        lambda path: read_manifest(path.parent),
        MANIFEST_NAME,
        lambda artifact: (artifact.directory / MANIFEST_NAME).read_text(),
    ),
    "calibration": Reader(lambda path: load_calibration(path, HASH), "c.json", lambda _: json.dumps(CALIBRATION)),
    "benchmark": Reader(_compare, "b.json", lambda _: json.dumps(FIGURES)),
    "tuning log": Reader(lambda path: read_log(path.parent), LOG_NAME, _tuning_log),
}
TOML = {
    "target": Reader(
        lambda path: load_target(str(path)),
        "t.toml",
        lambda _: 'description = "a"\ntriple = "x86_64-linux-gnu"\nmcpu = "x86-64"\n[roofline]\ngflops = 1\nsource = "s"\n',
    ),
    "recipe": Reader(
        lambda path: load_recipe(path), "r.toml", lambda _: "seed = 1\n[loss]\nlovasz = 1\n[[stages]]\nname = 'a'\nepochs = 3\n"
    ),
}


@pytest.mark.parametrize("reader", [*JSON.values(), *TOML.values()], ids=[*JSON, *TOML])
def test_a_good_file_is_taken_with_a_byte_order_mark_too(reader: Reader, tiny_artifact, tmp_path: Path):
    path = tmp_path / reader.name
    path.write_text(reader.good(tiny_artifact), encoding="utf-8")
    expected = reader.read(path)
    path.write_text(reader.good(tiny_artifact), encoding="utf-8-sig")
    assert reader.read(path) == expected


BAD = {
    "empty": lambda good: b"",
    "half": lambda good: good[: len(good) // 2 - 1],
    "trailing": lambda good: good + b"\n}",
    "twice": lambda good: good + good,
    "deep": lambda good: b"[" * 100_000 + b"]" * 100_000,
    "a deep value": lambda good: good.replace(b": ", b": " + b"[" * 990 + b"1" + b"]" * 990 + b', "also": ', 1),
    "binary": lambda good: bytes(range(256)),
    "utf-16": lambda good: good.decode().encode("utf-16"),
    "NaN": lambda good: good.replace(b"2", b"NaN", 1),
    "a key twice": lambda good: good.replace(b"{", b'{"threads": 1, "threads": 1, ', 1),
    "no object": lambda good: b"3",
    "null": lambda good: b"null",
}


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
@pytest.mark.parametrize("reader", JSON.values(), ids=JSON)
def test_bad_json_is_a_sentence_that_names_the_file(reader: Reader, damage, tiny_artifact, tmp_path: Path):
    path = tmp_path / reader.name
    path.write_bytes(damage(reader.good(tiny_artifact).encode()))
    with pytest.raises(UserError, match=reader.name) as caught:
        reader.read(path)
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value)


@pytest.mark.parametrize("reader", [*JSON.values(), *TOML.values()], ids=[*JSON, *TOML])
def test_a_folder_or_nothing_is_a_sentence(reader: Reader, tmp_path: Path):
    for make in (lambda path: None, Path.mkdir):
        make(tmp_path / reader.name)
        with pytest.raises(UserError, match=r";"):
            reader.read(tmp_path / reader.name)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container of a JSON content and a key of it."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    return [place for key in keys for place in [(content, key), *places(content[key])]]


def taken_or_refused(reader: Reader, path: Path) -> None:
    try:
        reader.read(path)
    except UserError as error:
        sentence = str(error)
    else:
        return
    assert reader.name in sentence
    assert "\n" not in sentence


SLOW_FIXTURES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("reader", JSON.values(), ids=JSON)
@SLOW_FIXTURES
@given(data=st.data())
def test_any_value_in_any_place_is_taken_or_refused(reader: Reader, tiny_artifact, tmp_path: Path, data: st.DataObject):
    content = json.loads(reader.good(tiny_artifact))
    inside, key = data.draw(st.sampled_from(places(content)))
    if data.draw(st.booleans()) and isinstance(inside, dict):
        del inside[key]
    else:
        inside[key] = data.draw(ANYTHING)
    path = tmp_path / reader.name
    path.write_text(json.dumps(content))
    taken_or_refused(reader, path)


TOML_VALUES = (
    "1",
    "-1",
    "1e400",
    "nan",
    "inf",
    "true",
    '""',
    '"x"',
    "[]",
    "[1]",
    "[[1]]",
    "{}",
    "{a = 1}",
    "1979-05-27",
    "9" * 40,
)
TOML_LINES = st.builds(
    "{}{} = {}".format,
    st.sampled_from(
        [
            "",
            "[roofline]\n",
            "[gpu]\n",
            "[loss]\n",
            "[[stages]]\n",
            "[optimiser]\n",
            "[[stages]]\n[stages.loss]\n",
            "[[loss]]\n",
        ]
    ),
    st.sampled_from(
        [
            *(
                "description",
                "triple",
                "mcpu",
                "mattr",
                "size",
                "cores",
                "notes",
                "roofline",
                "gpu",
                "arch",
                "gflops",
                "stages",
            ),
            *("epochs", "crop", "seed", "optimiser", "name", "lovasz", "'quoted key'", '"\\u0000"', '""', "a.b"),
        ]
    ),
    st.sampled_from(TOML_VALUES),
)


@pytest.mark.parametrize("reader", TOML.values(), ids=TOML)
@SLOW_FIXTURES
@given(lines=st.lists(TOML_LINES, max_size=4), keep=st.booleans())
def test_any_toml_is_taken_or_refused(reader: Reader, tmp_path: Path, lines: list[str], keep: bool):
    path = tmp_path / reader.name
    path.write_text("\n".join([*([reader.good(None)] if keep else []), *lines]))
    taken_or_refused(reader, path)


@pytest.mark.parametrize("metadata", ["[" * 100_000, "3", "null", '{"network": 3}', '{"network": NaN}', "{}", '{"classes": 7}'])
def test_weights_that_say_nonsense_of_themselves(metadata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    info = WeightsInfo("enet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    monkeypatch.setattr("enet_tvm.networks.weights.json.dumps", lambda _: metadata)
    save_network(ENet(2), info, tmp_path / "w.safetensors")
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"w\.safetensors does not say which network"):
        read_info(tmp_path / "w.safetensors")
