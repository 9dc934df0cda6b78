"""`enet-tvm plot prelu`: what is in the picture is what is in the weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from enet_tvm.cli.plot import app
from enet_tvm.errors import UserError
from enet_tvm.networks import ENet, ERFNet, WeightsInfo, save_network

MEAN, BAND, BORDER = (0, 114, 178), (205, 212, 222), (196, 52, 44)


def run(*arguments: object):
    result = CliRunner().invoke(app, ["prelu", *(str(argument) for argument in arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def save(network: nn.Module, path) -> None:
    save_network(network, WeightsInfo(network.name, ("a", "b"), ((0, 0, 0), (1, 1, 1)), (0, 0, 0), (1, 1, 1)), path)


def places(path, colour: tuple[int, int, int], tolerance: int = 8, below: int = 95) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels of a colour in the plot, under its legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.nonzero((np.abs(pixels - colour) <= tolerance).all(axis=2))
    return rows[rows > below], columns[rows > below]


def test_picture_and_figures(tmp_path):
    network = ENet(2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.PReLU):
                module.weight.copy_(torch.linspace(0.5, 1.0, module.num_parameters))
    save(network, tmp_path / "w.safetensors")
    output = run("-o", tmp_path / "p.png", "--weights", tmp_path / "w.safetensors", "--json", tmp_path / "p.json").output
    assert "67 PReLUs with 3,760 slopes from 0.5 to 1, 15 ReLUs" in output
    activations = json.loads((tmp_path / "p.json").read_text())["activations"]
    assert len(activations) == 82
    assert (activations[0]["layer"], activations[0]["mean"], activations[81]["kind"]) == ("initial.act", 0.75, "relu")

    path = tmp_path / "p.png"
    _, border = places(path, BORDER, tolerance=30)
    assert border.max() - border.min() <= 4, "one red line"
    band_rows, band_columns = places(path, BAND, tolerance=1)
    assert band_columns.max() < border.min(), "ReLUs have no range"
    mean_rows, mean_columns = places(path, MEAN)
    encoder, decoder = mean_rows[mean_columns < border.min()], mean_rows[mean_columns > border.max()]
    # 0.75 lies halfway between 0.5 and 1, and below all of it comes zero.
    assert abs(np.median(encoder) - (band_rows.min() + band_rows.max()) / 2) <= 2
    assert decoder.min() > band_rows.max()
    assert (mean_columns < border.min()).any()


def test_weights_without_slopes(tmp_path):
    save(ERFNet(2), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="no PReLU"):
        run("-o", tmp_path / "p.png", "--weights", tmp_path / "w.safetensors")
    assert not (tmp_path / "p.png").exists()


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run("-o", tmp_path / "file" / "p.png")
