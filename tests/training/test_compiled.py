"""A compiled network trains as the network itself does."""

import shutil

import pytest
import torch
from torch import nn

from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.size import Size
from enet_tvm.training.compiled import compiled
from enet_tvm.training.recipe import Recipe
from enet_tvm.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_outputs_and_gradients_are_the_networks():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4))
    x = torch.randn(2, 3, 8, 8)
    results = []
    for module in (network, compiled(network, CPU)):
        network.zero_grad()
        output = module(x)
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad.clone() for p in network.parameters())])
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-3)  # behind a batch norm gradients all but cancel


def test_without_a_compiler_there_is_a_sentence(monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(UserError, match=r"no C\+\+ compiler.*leave out --compile"):
        compiled(nn.Conv2d(3, 4, 1), CPU)


@pytest.mark.slow
def test_each_stage_of_a_training_runs_what_was_compiled(tmp_path, monkeypatch):
    class Counting(nn.Module):
        """Stands for a compiled ENet, which takes a minute to make: the wiring is what is tested."""

        def __init__(self, network, device):
            super().__init__()
            self.network, self.steps = network, 0
            made.append(self)

        def forward(self, x):
            self.steps += 1
            return self.network(x)

    made: list[Counting] = []
    monkeypatch.setattr("enet_tvm.training.trainer.compiled", Counting)
    stages = [{"name": "encoder", "part": "encoder"}, {"name": "network", "loss": {"encoder": 0.4}}]
    recipe = Recipe.model_validate({"epochs": 1, "batch_size": 4, "crop": "32x32", "precision": "float32", "stages": stages})
    streets = LabelledStreet(Size(48, 32), 4, 1), LabelledStreet(Size(48, 32), 1, 2)
    Trainer(recipe, *streets, tmp_path / "compiled", compile_step=True).run()
    Trainer(recipe, *streets, tmp_path / "plain").run()
    assert [module.steps for module in made] == [1, 1]
    logs = [(tmp_path / name / "log.csv").read_text().splitlines() for name in ("compiled", "plain")]
    assert [line.split(",")[:3] for line in logs[0]] == [line.split(",")[:3] for line in logs[1]]
