"""An ONNX file comes back as the same operators as from PyTorch, and what cannot be imported rightly is refused."""

import numpy as np
import onnx
import onnx.helper as oh
import pytest
import torch
import tvm
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow
from enet_tvm.compiler.frontend.onnx_export import export_onnx
from enet_tvm.compiler.frontend.onnx_import import from_onnx, read_onnx_info
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.kernels.cpu.templates import cpu_templates
from enet_tvm.compiler.passes.fold_batch_norm import FoldBatchNorm
from enet_tvm.compiler.passes.fuse_conv2d import FuseConv2D
from enet_tvm.compiler.passes.fuse_initial_block import FuseInitialBlock
from enet_tvm.errors import UserError
from enet_tvm.size import Size

FLOAT = onnx.TensorProto.FLOAT


def run(mod, x):
    executable = tvm.compile(relax.transform.LegalizeOps()(mod), "llvm")
    return relax.VirtualMachine(executable, tvm.cpu())["main"](tvm.runtime.tensor(x)).numpy()


def fused(mod):
    """Return {variable: (operator, attributes)} after the project's fusion, leaving out which layers went into it."""
    templates = cpu_templates(VectorUnit(16, 32))
    mod = tvm.ir.transform.Sequential([FoldBatchNorm(), FuseInitialBlock(templates), FuseConv2D(templates)])(mod)
    made = {}
    for binding in Dataflow(mod).bindings:
        if isinstance(binding.value, tvm.ir.Call):
            attrs = {key: str(binding.value.attrs[key]) for key in binding.value.attrs.keys() if key != "layers"}  # noqa: SIM118
            made[binding.var.name] = (binding.value.op.name, attrs)
    return made


def write(path, nodes, outputs, shape=(1, 2, 4, 4), kind=FLOAT, inputs=("x",), domains=()):
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info(name, kind, shape) for name in inputs],
        [oh.make_tensor_value_info(name, FLOAT, [*"abcd"]) for name in outputs],
    )
    opsets = [oh.make_opsetid("", 18), *(oh.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(oh.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.slow
def test_result_is_pytorchs(enet, onnx_file):
    x = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = enet(x).numpy()
    np.testing.assert_allclose(run(from_onnx(onnx_file), x.numpy()), expected, atol=1e-4)


@pytest.mark.slow
def test_fusion_makes_the_same_of_it_as_of_pytorch(enet, onnx_file):
    from_file, from_network = fused(from_onnx(onnx_file)), fused(from_torch(enet, (1, 3, 32, 64)))
    assert {name for name, _ in from_file.values()} == {
        "enet.initial_block",
        "enet.max_pool2d_with_window",
        "enet.fused_conv2d",
    }
    assert from_file == from_network


@pytest.mark.slow
def test_info_comes_back(small_onnx_file, info):
    assert read_onnx_info(small_onnx_file) == info


def test_a_value_read_twice_is_computed_once(tmp_path):
    nodes = [oh.make_node("Relu", ["x"], ["a"]), oh.make_node("Add", ["a", "a"], ["b"]), oh.make_node("Mul", ["a", "b"], ["y"])]
    kinds = [binding.value.op.name for binding in Dataflow(from_onnx(write(tmp_path / "f.onnx", nodes, ["y"]))).bindings[:3]]
    assert kinds == ["relax.nn.relu", "relax.add", "relax.multiply"]


def test_functions_of_others_are_inlined(tmp_path):
    path = write(tmp_path / "f.onnx", [oh.make_node("Twice", ["x"], ["y"], domain="them")], ["y"], domains=["them"])
    model = onnx.load(path)
    body = [oh.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(oh.make_function("them", "Twice", ["a"], ["b"], body, [oh.make_opsetid("", 18)]))
    onnx.save(model, path)
    x = np.ones((1, 2, 4, 4), np.float32)
    assert np.array_equal(run(from_onnx(path), x), 2 * x)


@pytest.mark.slow
def test_pytorchs_own_unpooling_is_refused(tmp_path):
    class Unpooling(torch.nn.Module):
        def forward(self, x):
            pooled, indices = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
            return pooled + indices

    program = torch.onnx.export(Unpooling().eval(), (torch.zeros(1, 2, 4, 4),), dynamo=True, verbose=False)
    program.save(tmp_path / "f.onnx")
    with pytest.raises(UserError, match="max pooling with indices"):
        from_onnx(tmp_path / "f.onnx")


@pytest.mark.parametrize(
    ("nodes", "options", "sentence"),
    [
        ([oh.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])], {}, "max pooling with indices"),
        (
            [oh.make_node("Cast", ["x"], ["i"], to=7), oh.make_node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2])],
            {},
            "unpools by indices",
        ),
        ([oh.make_node("Odd", ["x"], ["y"], domain="them")], {"domains": ["them"]}, "domain 'them'"),
        ([oh.make_node("StringNormalizer", ["x"], ["y"])], {}, "not a valid|cannot be imported"),
        ([oh.make_node("Hardmax", ["x"], ["y"], axis=9)], {}, "not a valid|cannot be imported"),
        ([oh.make_node("Add", ["x", "z"], ["y"])], {"inputs": ("x", "z")}, "2 inputs"),
        ([oh.make_node("Relu", ["x"], ["y"])], {"shape": (1, 2, "h", "w")}, "four fixed dimensions"),
        ([oh.make_node("Relu", ["x"], ["y"])], {"shape": (2, 4)}, "four fixed dimensions"),
        ([oh.make_node("Relu", ["x"], ["y"])], {"kind": onnx.TensorProto.DOUBLE}, "not a float32"),
    ],
)  # fmt: skip
def test_foreign_graphs_are_refused(tmp_path, nodes, options, sentence):
    with pytest.raises(UserError, match=sentence):
        from_onnx(write(tmp_path / "f.onnx", nodes, ["y"], **options))


def test_pooling_with_indices_hidden_in_a_branch_is_refused(tmp_path):
    output = oh.make_tensor_value_info("z", FLOAT, [*"abcd"])
    branch = oh.make_graph([oh.make_node("MaxPool", ["x"], ["z", "i"], kernel_shape=[2, 2])], "b", [], [output])
    condition = oh.make_node("Constant", [], ["c"], value=oh.make_tensor("c", onnx.TensorProto.BOOL, [], [True]))
    nodes = [condition, oh.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    with pytest.raises(UserError, match="max pooling with indices"):
        from_onnx(write(tmp_path / "f.onnx", nodes, ["y"]))


@pytest.mark.parametrize("keep", [0, 10, 100, -100])
def test_truncated_file(small_onnx_file, tmp_path, keep):
    path = tmp_path / "f.onnx"
    path.write_bytes(small_onnx_file.read_bytes()[:keep])
    for read in (from_onnx, read_onnx_info):
        with pytest.raises(UserError, match="not a valid ONNX file"):
            read(path)


def test_missing_file_and_missing_info(tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        from_onnx(tmp_path / "none.onnx")
    with pytest.raises(UserError, match="does not say which network"):
        read_onnx_info(write(tmp_path / "f.onnx", [oh.make_node("Relu", ["x"], ["y"])], ["y"]))


def test_numbers_that_are_none_are_refused(small_onnx_file, tmp_path):
    model = onnx.load(small_onnx_file)
    said = next(entry for entry in model.metadata_props if entry.key == "std")
    said.value = "[1, 0, 1]"
    onnx.save(model, tmp_path / "std.onnx")
    with pytest.raises(UserError, match="cannot normalise pictures: std 1 is 0"):
        read_onnx_info(tmp_path / "std.onnx")
    weight = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(-1)[0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(UserError, match=f"'{weight.name}' has NaN or infinite values"):
        from_onnx(tmp_path / "nan.onnx")


def test_source_of_an_export(info, tmp_path):
    from enet_tvm.compiler.frontend.onnx_export import export_onnx
    from enet_tvm.compiler.frontend.onnx_import import read_onnx_source
    from enet_tvm.size import Size

    path, digest = tmp_path / "small.onnx", "ab" * 32
    export_onnx(torch.nn.Conv2d(3, 3, 1).eval(), info, Size(64, 32), path, weights_sha256=digest)
    assert read_onnx_source(path) == ((1, 3, 32, 64), digest)


@pytest.mark.slow
def test_odd_planes_lose_a_row_and_get_zeros_back(info, tmp_path):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 16, 3, padding=1)
            self.pool = torch.nn.MaxPool2d(2, return_indices=True)
            self.unpool = torch.nn.MaxUnpool2d(2)
            self.last = torch.nn.Conv2d(16, 3, 3, padding=1)

        def forward(self, x):
            x = self.first(x)
            pooled, indices = self.pool(x)
            return self.last(self.unpool(pooled, indices, list(x.shape[2:])))

    torch.manual_seed(0)
    network = Odd().eval()
    export_onnx(network, info, Size(15, 9), tmp_path / "odd.onnx")
    x = torch.randn(1, 3, 9, 15)
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(run(from_onnx(tmp_path / "odd.onnx"), x.numpy()), expected, atol=1e-5)
