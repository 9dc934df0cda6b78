from __future__ import annotations

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from enet_tvm.agreement import NOISE
from enet_tvm.bench.runners import RUNNERS, Runner
from enet_tvm.cli.main import build_app, main
from enet_tvm.errors import UserError

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def run(*arguments: object):
    result = CliRunner().invoke(build_app(), ["bench", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_help_names_every_runner():
    """The command is too thin to read them from their table."""
    told = run("--help").output
    listed = told[told.index("Runners on a processor") : told.index("Options")]
    assert set(RUNNERS) <= set(re.findall(r"[a-z0-9-]+", listed))


@pytest.mark.slow
def test_bench_and_what_changed(compiled_enet, tmp_path):
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    artifact = ("--artifact", compiled_enet.directory, "--threads", 1, "--seconds", 0)
    written = ("--json", before, "--markdown", tmp_path / "b.md", "--html", tmp_path / "b.html")
    result = run(*artifact, "--runner", "tvm", "--streams", "1,2", *written)
    assert result.exit_code == 0, result.output
    assert "64x48, 1 thread, arithmetic limit" in result.output
    assert "images/s, 2 streams" in result.output
    (figures,) = json.loads(before.read_text())
    (ours,) = figures["entries"]
    assert ours["label_agreement"] >= NOISE["float32"]
    assert ours["latency"]["transfer_ms"] == 0
    assert ours["artifact_sha256"].keys() == {"enet.so", "manifest.json"}
    assert [rate["streams"] for rate in ours["footprint"]["throughput"]] == [1, 2]
    assert "| tvm | " in (tmp_path / "b.md").read_text()
    assert '<th scope="row">tvm</th>' in (tmp_path / "b.html").read_text()

    assert run(*artifact, "--runner", "tvm", "--runner", "torch", "--streams", 0, "--json", after).exit_code == 0
    changes = run("compare", before, after, "--json", tmp_path / "changes.json")
    assert changes.exit_code == 0
    assert "torch, 64x48, 1 threads: there after only" in changes.output
    assert "machine, versions, weights and target are the same" in changes.output
    (ours, theirs) = json.loads((tmp_path / "changes.json").read_text())["runners"]
    assert (ours["runner"], theirs["runner"], theirs["latency"]) == ("tvm", "torch", None)
    assert ours["latency"]["ratio"] > 0


def test_a_runner_that_fails_parity_ends_in_1(compiled_enet, tmp_path, monkeypatch):
    class Wrong(Runner):
        description = "always class 0"

        def forward(self, x):
            return np.broadcast_to(np.eye(11, 1, dtype=np.float32)[None, :, :, None], (1, 11, *x.shape[2:]))

    monkeypatch.setitem(RUNNERS, "wrong", lambda _: Wrong())
    weights = ("--weights", compiled_enet.weights, "--size", "64x48", "--seconds", 0, "--streams", 0)
    result = run(*weights, "--runner", "wrong", "--json", tmp_path / "b.json")
    assert result.exit_code == 1
    assert "wrong fails parity" in result.output
    assert "its speed is no result" in result.output
    assert json.loads((tmp_path / "b.json").read_text())[0]["entries"][0]["latency"] is None


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="give --tracker"):
        run("--runner", "tvm-rpc")
    with pytest.raises(UserError, match=r"give a file of 'enet-tvm bench --json'"):
        run("compare", tmp_path / "a.json", tmp_path / "b.json")


def test_exit_codes_of_the_program(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--help"])
    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert "--runner" in help_text
    assert "compare" in help_text


def test_segnet_is_a_benchmark_and_answers_to_the_name_that_it_had():
    helps = [CliRunner().invoke(build_app(), [*verb, "--help"]).output for verb in (["bench", "segnet"], ["compare"])]
    assert all("Compare ENet with SegNet" in text for text in helps)
    listed = CliRunner().invoke(build_app(), ["--help"]).output
    assert "compare" not in listed
    assert "bench" in listed


def test_help_names_every_runner():
    said = run("--help").output
    assert [name for name in RUNNERS if not re.search(rf"[ │]{name}[,. ]", said)] == []
