"""Devices by name, and two real processes that train as one would."""

import json
import os
import runpy
import subprocess
import sys
import textwrap

import pytest
import torch

from enet_tvm.errors import UserError
from enet_tvm.training.processes import Processes, choose_device, join_processes

SCRIPT = """
    import json, sys
    import torch
    from enet_tvm.data.source import LabelledStreet
    from enet_tvm.networks import load_network
    from enet_tvm.size import Size
    from enet_tvm.training.processes import join_processes
    from enet_tvm.training.recipe import Recipe
    from enet_tvm.training.trainer import Trainer

    torch.set_num_threads(1)
    recipe = {
        "epochs": 1, "batch_size": 4, "crop": "64x48", "evaluate_every": 1, "average_decay": 0.5, "dropout": 0.0,
        "optimiser": {"warmup_epochs": 0, "learning_rate": 1e-4}, "batch_norm_batches": 2, "rare": {"paste": 0.5},
        "precision": "float32", "loss": {"lovasz": 0},
        "stages": [{"name": "a", "part": "encoder"}, {"name": "b", "loss": {"encoder": 0.4}}],
    }
    steps = []
    class Watcher:
        def started(self, plan): pass
        def stepped(self, step): steps.append(step.loss)
        def epoch_done(self, row): pass
    with join_processes("cpu") as processes:
        train, val = LabelledStreet(Size(96, 64), 8, 1), LabelledStreet(Size(96, 64), 1, 2)
        trainer = Trainer(Recipe.model_validate(recipe), train, val, sys.argv[1], processes=processes)
        trainer.run(Watcher())
        if processes.leads:
            kept = load_network(sys.argv[1] + "/last.safetensors").initial.norm
            statistics = [
                [norm.running_mean.tolist(), norm.running_var.tolist(), [int(norm.num_batches_tracked)]]
                for norm in (trainer.whole.initial.norm, kept)
            ]
            print(json.dumps({"losses": steps, "statistics": statistics, "count": processes.count}))
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def in_two_processes(script, directory):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(script), str(directory)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def in_this_process(script, directory, monkeypatch, capsys):
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [str(script), str(directory)])
    capsys.readouterr()
    try:
        runpy.run_path(str(script))
    finally:
        torch.set_num_threads(threads)
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_whole_batch(script, tmp_path, monkeypatch, capsys):
    alone = in_this_process(script, tmp_path / "1", monkeypatch, capsys)
    shared = in_two_processes(script, tmp_path / "2")
    assert (alone["count"], shared["count"]) == (1, 2)
    assert len(alone["losses"]) == 4
    assert shared["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-5)
    assert shared["losses"] == pytest.approx(alone["losses"], rel=2e-3)
    for shared_norm, norm in zip(shared["statistics"], alone["statistics"], strict=True):
        for ours, theirs in zip(shared_norm, norm, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-2, abs=1e-3)  # Adam makes steps of rounding errors
    assert {path.name for path in (tmp_path / "2").iterdir()} == {path.name for path in (tmp_path / "1").iterdir()}


def test_the_best_device_is_the_default():
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device().type == expected
    assert choose_device("cpu") == torch.device("cpu")


def test_devices_that_are_not_here_are_refused():
    with pytest.raises(UserError, match="no kind of device 'gpu'"):
        choose_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"no cuda device here; give one of .*cpu"):
            choose_device("cuda")
    with pytest.raises(UserError, match="no meta device"):
        choose_device("meta")


def test_alone_there_is_nothing_to_share():
    with join_processes("cpu") as processes:
        assert processes == Processes()
        assert processes.leads
        assert processes.share(6) == slice(0, 6)
        network = torch.nn.BatchNorm2d(3)
        assert processes.together(network) is processes.share_batch_norms(network) is network
        assert processes.sum(torch.tensor(2.0)) == 2
    assert Processes(rank=1, count=3).share(6) == slice(2, 4)
