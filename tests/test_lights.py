"""`benchmarks/lights.py`: mean IoU of weights in changed light."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from scripts import load_script
from typer.testing import CliRunner

from enet_tvm.data.rides import judged_data
from enet_tvm.data.synthetic import SyntheticStreet
from enet_tvm.evaluation.evaluate import evaluate
from enet_tvm.evaluation.predictors import weights_predictor
from enet_tvm.networks.weights import DEFAULT_WEIGHTS
from enet_tvm.size import Size

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "lights.py"
CAMVID = Path(os.environ.get("ENET_TVM_CAMVID", Path(__file__).resolve().parents[2] / "shared/camvid"))


@pytest.fixture(scope="module")
def script():
    return load_script(SCRIPT)


@pytest.fixture
def street():
    return SyntheticStreet(Size(64, 48), 1)[0][0]


def test_as_taken_leaves_every_pixel(script, street):
    np.testing.assert_array_equal(np.asarray(script.in_light(street, script.LIGHTS["as taken"])), np.asarray(street))


def test_lights_change_what_they_are_called_after(script, street):
    """A stop is a factor of two; warm light has more red and less blue; a grey picture has one value a pixel."""
    pixels = np.asarray(street).astype(float)
    lit = {name: np.asarray(script.in_light(street, change)).astype(float) for name, change in script.LIGHTS.items()}
    np.testing.assert_allclose(lit["one stop darker"], pixels / 2, atol=0.51)
    below = pixels < 255 / 2**0.5 - 1  # brighter ones are clipped
    np.testing.assert_allclose(lit["half a stop brighter"][below], pixels[below] * 2**0.5, atol=0.51)
    assert (lit["warm"][..., 2] <= pixels[..., 2]).all()
    assert (lit["warm"][..., 0] >= pixels[..., 0]).all()
    assert (lit["cold"][..., 0] <= pixels[..., 0]).all()
    assert np.ptp(lit["grey"], axis=2).max() <= 1
    assert 0.02 * 255 < (lit["noisy"] - pixels).std() < 0.04 * 255 + 1


def test_a_light_is_the_same_each_time(script, street):
    noisy = script.LIGHTS["two stops darker, noisy"]
    np.testing.assert_array_equal(*(np.asarray(script.in_light(street, noisy)) for _ in range(2)))


@pytest.mark.slow
@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not here; set ENET_TVM_CAMVID to its directory")
def test_weights_are_judged_in_every_light(script, tmp_path):
    """The command prints a column for each weights file and keeps the figures; as taken, they are those of `evaluate`."""
    app = typer.Typer()
    app.command()(script.main)
    threads = torch.get_num_threads()
    out = tmp_path / "lights.json"
    held_out = ["0016E5:-3"]
    command = ["--data", str(CAMVID), "--split", "val", "--hold-out", *held_out, "--threads", "1", "--json", str(out)]
    try:
        shown = CliRunner().invoke(app, command, catch_exceptions=False)
    finally:
        torch.set_num_threads(threads)
    (reached,) = json.loads(out.read_text())["miou"].values()
    assert list(reached) == list(script.LIGHTS)
    model, samples = weights_predictor(DEFAULT_WEIGHTS), judged_data(str(CAMVID), "val", held_out)
    expected = evaluate(model.forward, samples, samples.class_set, model.mean, model.std, samples.paper_size)
    assert reached["as taken"] == pytest.approx(expected.miou, abs=1e-3)
    assert reached["two stops darker, noisy"] < reached["as taken"]
    assert "| enet-camvid.safetensors |" in shown.output
    assert f"| as taken | {100 * reached['as taken']:.1f} |" in shown.output
