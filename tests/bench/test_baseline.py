"""`enet-tvm bench segnet`: both networks, compiled alike, and the ratios of what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from enet_tvm.bench.baseline import PAPER, BaselineComparison, Side, agreement
from enet_tvm.bench.measure.latency import Latency
from enet_tvm.cli.bench_segnet import command
from enet_tvm.errors import UserError
from enet_tvm.networks import SegNet, WeightsInfo, save_network
from enet_tvm.networks.summary import summarise
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size


def side(network: str, milliseconds: float, flops: int, parameters: int, agreement: float = 1.0) -> Side:
    return Side(network, "random", 2, parameters, flops, 9, agreement, Latency((milliseconds / 1e3,) * 5))


def test_ratios_are_segnets_over_enets():
    enet, segnet = side("ENet", 10, 4_000, 100), side("SegNet", 170, 300_000, 8_000)
    result = BaselineComparison(Size(640, 360), 2, "native", enet, segnet)
    assert result.ratios == pytest.approx({"faster": 17.0, "fewer_flops": 75.0, "fewer_parameters": 80.0})
    assert result.ratios.keys() == PAPER.keys()
    assert result.passed


def test_paper_agrees_with_itself():
    """Its headline is the ratio of its own table."""
    enet, segnet = NETWORKS["enet"].costs, NETWORKS["segnet"].costs
    assert round(segnet.flops / enet.flops) == PAPER["fewer_flops"]
    assert int(segnet.parameters / enet.parameters) == PAPER["fewer_parameters"]


def test_a_network_that_says_something_else_does_not_pass():
    wrong = BaselineComparison(Size(64, 64), 1, "native", side("ENet", 1, 1, 1, 0.96), side("SegNet", 1, 1, 1))
    assert not wrong.passed


def test_agreement_counts_pixels_all_of_whose_logits_are_right():
    expected = np.zeros((1, 3, 4, 5), np.float32)
    expected[0, 0, 0, 0] = 10
    logits = expected.copy()
    assert agreement(logits, expected) == 1
    logits[0, 1, 2, 3] += 0.009  # within a thousandth of the largest
    assert agreement(logits, expected) == 1
    logits[0, 1, 2, 3] += 0.002
    logits[0, 2, 2, 3] += 1
    assert agreement(logits, expected) == pytest.approx(19 / 20)
    logits[0, 0, 3, 4] = np.nan
    assert agreement(logits, expected) == pytest.approx(18 / 20)


def run(*arguments: object):
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.slow
def test_command(compiled_enet, tmp_path):
    result = run(
        *("--size", "40x32", "--weights", compiled_enet.weights, "--seconds", 0, "--threads", 1),
        *("--json", tmp_path / "compare.json"),
    )
    assert result.exit_code == 0
    assert "ENet and SegNet at 40x32, batch 1, float32, 1 threads, native" in result.output
    assert "up to 18x" in result.output
    assert "random weights" in result.output
    (content,) = json.loads((tmp_path / "compare.json").read_text())
    enet, segnet = content["networks"]
    assert (enet["network"], segnet["network"], segnet["weights"]) == ("ENet", "SegNet", "random")
    assert enet["weights"] == str(compiled_enet.weights)
    assert (enet["kernels"], segnet["kernels"]) == (91, 37)
    assert segnet["flops"] == summarise(SegNet(11), Size(40, 32)).total.flops
    assert content["ratios"]["faster"] == pytest.approx(segnet["latency"]["median_ms"] / enet["latency"]["median_ms"])
    assert content["ratios"]["faster"] > 1
    assert content["passed"]


def test_bad_input(compiled_enet, tmp_path):
    with pytest.raises(UserError, match="24x64 is too small"):
        run("--size", "24x64", "--weights", compiled_enet.weights)
    with pytest.raises(UserError, match="holds weights of enet, not of segnet"):
        run("--segnet-weights", compiled_enet.weights)
    path = tmp_path / "segnet.safetensors"
    save_network(SegNet(2), WeightsInfo("segnet", ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1)), path)
    with pytest.raises(UserError, match="holds weights of segnet, not of enet"):
        run("--weights", path)
