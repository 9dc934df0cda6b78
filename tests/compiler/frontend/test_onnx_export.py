"""The ONNX file says what PyTorch says, in operators that any runtime has, or does not appear."""

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from enet_tvm.compiler.frontend import onnx_export
from enet_tvm.compiler.frontend.onnx_export import export_onnx
from enet_tvm.errors import UserError
from enet_tvm.size import Size


@pytest.mark.slow
def test_file_computes_what_pytorch_does(enet, onnx_file):
    session = onnxruntime.InferenceSession(onnx_file)
    x = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = enet(x).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"picture": x.numpy()})[0], expected, atol=1e-4)


@pytest.mark.slow
def test_operators_are_standard_and_none_scatters(onnx_file):
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    count = Counter(node.op_type for node in model.graph.node)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert not [kind for kind in count if "Scatter" in kind or "Unpool" in kind or kind == "Dropout"]
    assert count["DepthToSpace"] == 2
    assert all(len(node.output) == 1 for node in model.graph.node)


@pytest.mark.slow
def test_nodes_are_named_after_layers(enet, onnx_file):
    names = [node.name for node in onnx.load(onnx_file).graph.node]
    assert len(set(names)) == len(names)
    layers = {name for name, _ in enet.named_modules()}
    assert {name.split("#")[0].split("/")[0] for name in names} <= layers
    assert {"initial.conv", "bottleneck3_8.act", "fullconv", "bottleneck1_0.pool/window"} <= set(names)


@pytest.mark.slow
def test_metadata_say_what_the_network_is(onnx_file, info):
    said = {entry.key: entry.value for entry in onnx.load(onnx_file).metadata_props}
    assert said["network"] == "enet"
    assert json.loads(said["classes"]) == list(info.classes)
    assert json.loads(said["palette"]) == [list(colour) for colour in info.palette]
    assert (json.loads(said["mean"]), json.loads(said["std"])) == (list(info.mean), list(info.std))


@pytest.mark.slow
def test_nothing_of_this_machine_is_in_the_file(onnx_file):
    content = onnx_file.read_bytes()
    assert b"site-packages" not in content
    assert b".py" not in content


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.last = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        pooled, indices = self.pool(self.first(x))
        return self.last(self.unpool(pooled, indices))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small()


def test_network_stays_as_it_was(small, info, tmp_path):
    before = {key: value.clone() for key, value in small.state_dict().items()}
    report = export_onnx(small, info, Size(16, 8), tmp_path / "small.onnx", opset=23)
    assert (report.opset, report.agreement) == (23, 1.0)
    assert report.max_abs_logit_diff < 1e-4
    assert all(torch.equal(value, before[key]) for key, value in small.state_dict().items())
    assert isinstance(small.unpool, nn.MaxUnpool2d)


@pytest.mark.slow
def test_portable_form_of_a_network_has_neither_indices_nor_strided_slices(small, info, tmp_path):
    report = export_onnx(small, info, Size(16, 8), tmp_path / "small.onnx", form="portable")
    assert report.agreement == 1.0
    count = Counter(node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node)
    assert {"Conv", "MaxPool", "Resize", "Sub", "Clip", "Mul"} <= count.keys()
    assert not {"Slice", "DepthToSpace", "Equal", "Where", "ScatterElements", "BatchNormalization"} & count.keys()


@pytest.mark.parametrize("opset", [9, 17, 24])
def test_opset_out_of_range(small, info, tmp_path, opset):
    with pytest.raises(UserError, match="choose one from 18 to 23"):
        export_onnx(small, info, Size(16, 8), tmp_path / "enet.onnx", opset)


@pytest.mark.slow
def test_file_that_disagrees_never_replaces_the_old_one(small, info, tmp_path, monkeypatch):
    path = tmp_path / "enet.onnx"
    path.write_text("old")

    def change_a_bias(network, size, opset, to_model=onnx_export.to_model):
        model = to_model(network, size, opset)
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "last.bias")
        bias.raw_data = np.full(3, 9, np.float32).tobytes()
        return model

    monkeypatch.setattr(onnx_export, "to_model", change_a_bias)
    with pytest.raises(UserError, match=r"agrees with PyTorch on 0\.00% of the pixels only"):
        export_onnx(small, info, Size(16, 8), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "agrees"), [(1, True), (0, True), (2, True), (3, False)])
def test_a_patch_that_moves_is_looked_at_on_another_input(small, info, tmp_path, monkeypatch, inputs, agrees):
    """As a near-tie in a pooling window moves one, on the machine that has it."""
    asked = []

    def run(session, *arguments, run=onnxruntime.InferenceSession.run):
        (logits,) = run(session, *arguments)
        asked.append(session)
        logits[:, :, :2, :2] += 0.3 * (len(asked) <= inputs) * np.abs(logits).max()
        return [logits]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", run)
    if agrees:
        assert export_onnx(small, info, Size(16, 8), tmp_path / "enet.onnx").agreement == 1.0
        assert len(asked) == inputs + 1
    else:
        with pytest.raises(UserError, match=r"agrees with PyTorch on 96\.88% of the pixels only"):
            export_onnx(small, info, Size(16, 8), tmp_path / "enet.onnx")
