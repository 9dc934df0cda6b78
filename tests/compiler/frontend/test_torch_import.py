"""What PyTorch computes is what is imported, and what cannot be imported rightly is refused with a sentence."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import Tensor, nn
from torch.nn import functional as F
from tvm import relax

from enet_tvm.compiler.dataflow import Dataflow, constant_value, is_call, layer_of
from enet_tvm.compiler.frontend.torch_import import from_torch
from enet_tvm.errors import UserError
from enet_tvm.networks.enet import BN_EPS

SHAPE = (1, 3, 24, 40)


@pytest.fixture(scope="session")
def imported(enet: nn.Module) -> tvm.IRModule:
    return from_torch(enet, SHAPE)


@pytest.fixture
def agrees(run_relax) -> Callable[..., None]:
    """Fails unless the imported network computes what PyTorch does, in double precision, for random input."""

    def check(network: nn.Module, shape: tuple[int, int, int, int], atol: float = 1e-5) -> None:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = copy.deepcopy(network).double()(x.double())
        actual = run_relax(from_torch(network, shape), x.numpy())
        assert actual.shape == tuple(expected.shape)
        np.testing.assert_allclose(actual, expected.numpy(), atol=atol * float(expected.abs().max()), rtol=0)

    return check


def calls(mod: tvm.IRModule, name: str) -> list[relax.Call]:
    return [binding.value for binding in Dataflow(mod).bindings if is_call(binding.value, name)]


def test_enet_becomes_the_expected_operators(imported: tvm.IRModule, enet: nn.Module):
    """One operator a layer, none for dropout and none that stands for indices."""
    layers = Counter(type(module) for module in enet.modules())
    biases = sum(m.bias is not None for m in enet.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))
    bottlenecks = 27
    found = Counter(str(b.value.op.name) for b in Dataflow(imported).bindings if isinstance(b.value, relax.Call))
    assert found == {
        "relax.nn.conv2d": layers[nn.Conv2d],
        "relax.nn.conv2d_transpose": layers[nn.ConvTranspose2d],
        "relax.nn.batch_norm": layers[nn.BatchNorm2d],
        "relax.nn.prelu": layers[nn.PReLU],
        "relax.nn.relu": layers[nn.ReLU],
        "relax.nn.max_pool2d": 1,
        "relax.nn.pad": 2,
        "relax.concat": 1,
        "relax.add": biases + bottlenecks,
        "enet.max_pool2d_with_window": 2,
        "enet.max_unpool2d": 2,
    }


def test_every_variable_is_named_after_a_layer(imported: tvm.IRModule, enet: nn.Module):
    modules = {name for name, _ in enet.named_modules()}
    *bindings, _ = Dataflow(imported).bindings
    names = [str(binding.var.name) for binding in bindings]
    assert len(set(names)) == len(names)
    assert {layer_of(binding.var) for binding in bindings} <= modules
    by_name = dict(zip(names, (binding.value for binding in bindings), strict=True))
    assert is_call(by_name["bottleneck1_0.act"], "relax.nn.prelu")
    assert is_call(by_name["bottleneck2_3.conv.0"], "relax.nn.conv2d")
    assert is_call(by_name["bottleneck5_0.unpool"], "enet.max_unpool2d")
    assert is_call(by_name["bottleneck4_0.conv.0"], "relax.add"), "a layer's plain name is its result's: after the bias"
    (convolution,) = (value for name, value in by_name.items() if name.startswith("bottleneck4_0.conv.0#"))
    assert is_call(convolution, "relax.nn.conv2d_transpose")
    assert isinstance(by_name["bottleneck4_0.expand.1"], relax.TupleGetItem)
    assert isinstance(by_name["bottleneck1_0.dropout"], relax.TupleGetItem), "dropout passes on the batch norm's value"


def test_the_stack_names_layers_at_any_depth(network_of):
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False)), nn.ReLU()).eval()
    assert [layer_of(b.var) for b in Dataflow(from_torch(network, SHAPE)).bindings][:2] == ["0.0", "1"]


def test_batch_norms_keep_what_they_have(imported: tvm.IRModule, enet: nn.Module):
    norms = [m for m in enet.modules() if isinstance(m, nn.BatchNorm2d)]
    found = calls(imported, "relax.nn.batch_norm")
    assert len(found) == len(norms)
    for call in found:
        assert float(call.attrs["epsilon"]) == pytest.approx(BN_EPS)
        assert float(call.attrs["momentum"]) == pytest.approx(0.1)
        assert not bool(call.attrs["training"])
        assert int(call.attrs["axis"]) == 1
    statistics = {constant_value(call.args[4]).tobytes() for call in found}
    assert statistics == {norm.running_var.numpy().tobytes() for norm in norms}


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("options", [{}, {"eps": 0.5, "momentum": 0.3}, {"affine": False}])
def test_batch_norm_with_statistics_that_matter(agrees, randomised, options: dict[str, Any]):
    """TVM's converter takes the momentum for epsilon: off by 3 % or more here."""
    network = nn.BatchNorm2d(5, **{"affine": True, **options}).eval()
    network.running_mean.copy_(torch.linspace(-2, 2, 5))
    network.running_var.copy_(torch.linspace(0.01, 3, 5))
    if network.affine:
        randomised(nn.Sequential(nn.PReLU()))
        network.weight.data.copy_(torch.linspace(0.5, 2, 5))
        network.bias.data.copy_(torch.linspace(-1, 1, 5))
    agrees(network, (2, 5, 4, 6), atol=1e-6)


def test_batch_norm_of_the_batch_is_refused(network_of):
    network = network_of(lambda _, x: F.batch_norm(x, torch.zeros(3), torch.ones(3), training=True))
    with pytest.raises(UserError, match="batch norm without fixed statistics"):
        from_torch(network, SHAPE)


def test_batch_norm_without_statistics_is_refused():
    with pytest.raises(UserError, match="batch norm without fixed statistics"):
        from_torch(nn.BatchNorm2d(3, track_running_stats=False), SHAPE)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout2d(0.5), nn.Dropout2d(0.5, inplace=True)])
def test_dropout_goes(layer: nn.Module):
    """Also when the network is given in training mode: it is imported for inference."""
    network = nn.Sequential(nn.ReLU(), layer, nn.Sigmoid()).train()
    mod = from_torch(network, SHAPE)
    assert [str(b.value.op.name) for b in Dataflow(mod).bindings if isinstance(b.value, relax.Call)] == [
        "relax.nn.relu",
        "relax.sigmoid",
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: F.dropout(x, 0.5, training=True),
        lambda _, x: F.dropout(x + 1, 0.5, training=True, inplace=True),
        lambda _, x: F.dropout2d(x, 0.5, training=True),
        lambda _, x: F.dropout2d(x + 1, 0.5, training=True, inplace=True),
        lambda _, x: torch.native_dropout(x, 0.5, True)[0],
        lambda _, x: F.alpha_dropout(x, 0.5, training=True),
    ],
)
def test_dropout_that_always_drops_is_refused(network_of, function: Callable[..., Tensor]):
    with pytest.raises(UserError, match=r"dropout.*(import|replace)"):
        from_torch(network_of(function), SHAPE)


def twice(pooled: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    return F.max_unpool2d(2 * pooled[0], pooled[1], 2, output_size=size)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (3, 5, 7, 9), (2, 4, 12, 6)])
def test_unpooling_is_pytorchs(network_of, agrees, shape: tuple[int, int, int, int]):
    agrees(network_of(lambda _, x: twice(F.max_pool2d(x, 2, return_indices=True), x.shape[2:])), shape, atol=0)


def test_two_unpoolings_of_one_pooling(network_of, agrees):
    def function(_: nn.Module, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 2, return_indices=True)
        return twice(pooled, x.shape[2:]) + F.max_unpool2d(torch.sigmoid(pooled[0]), pooled[1], 2)

    agrees(network_of(function), (1, 3, 8, 16))


def test_unpoolings_of_nested_poolings(network_of, agrees):
    def function(_: nn.Module, x: Tensor) -> Tensor:
        outer, outer_indices = F.max_pool2d(x, 2, return_indices=True)
        inner, inner_indices = F.max_pool2d(outer, 2, return_indices=True)
        return F.max_unpool2d(F.max_unpool2d(inner, inner_indices, 2), outer_indices, 2)

    agrees(network_of(function), (1, 3, 8, 16), atol=0)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, return_indices=True),
        nn.MaxPool2d(2, stride=1, return_indices=True),
        nn.MaxPool2d(2, padding=1, return_indices=True),
        nn.MaxPool2d(2, dilation=2, return_indices=True),
        nn.MaxPool2d(2, ceil_mode=True, return_indices=True),
        nn.MaxPool2d((2, 4), return_indices=True),
    ],
    ids=repr,
)
def test_other_windows_are_refused(network_of, pool: nn.Module):
    with pytest.raises(UserError, match="windows other than 2x2 with stride 2"):
        from_torch(network_of(lambda net, x: net.pool(x)[0], pool=pool), (1, 3, 13, 13))


def test_other_windows_without_indices_are_no_matter(agrees):
    agrees(nn.MaxPool2d(3, stride=1, padding=1).eval(), (1, 3, 13, 13), atol=0)


@pytest.mark.parametrize("offset", [0, 1])
def test_indices_of_no_pooling_are_refused(network_of, offset: int):
    def function(_: nn.Module, x: Tensor) -> Tensor:
        indices = torch.arange(12 * 20).reshape(1, 1, 12, 20).expand(1, 3, 12, 20) + offset
        return F.max_unpool2d(x[:, :, ::2, ::2], indices, 2)

    with pytest.raises(UserError, match="indices that no max pooling of this network made"):
        from_torch(network_of(function), SHAPE)


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: F.max_pool2d(x, 2, return_indices=True),
        lambda _, x: F.max_pool2d(x, 2, return_indices=True)[1].float(),
        lambda _, x: (lambda v, i: F.max_unpool2d(v, i, 2) + i.sum())(*F.max_pool2d(x, 2, return_indices=True)),
        lambda _, x: (lambda v, i: F.max_unpool2d(v, i + 1, 2))(*F.max_pool2d(x, 2, return_indices=True)),
    ],
    ids=["returned", "cast", "also summed", "moved"],
)
def test_indices_used_as_numbers_are_refused(network_of, function: Callable[..., Any]):
    """A window index is another number than PyTorch's: letting it out would be wrong without an error."""
    with pytest.raises(UserError, match=r"go elsewhere|no max pooling"):
        from_torch(network_of(function), SHAPE)


def test_unpooling_into_another_plane_is_refused(network_of):
    """PyTorch takes its indices for places in the new plane, which scatters the maxima; nobody wants that."""
    network = network_of(lambda _, x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2))
    with pytest.raises(UserError, match="unpools to 8x8 what was pooled from 9x9"):
        from_torch(network, (1, 3, 9, 9))


def test_pooling_of_volumes_with_indices_is_refused(network_of):
    """TVM would return zeros for them."""
    network = network_of(lambda _, x: F.max_pool3d(x[None], 2, return_indices=True)[1].float())
    with pytest.raises(UserError, match="cannot be imported rightly"):
        from_torch(network, (4, 4, 4, 4))


def test_an_operator_that_tvm_does_not_know(network_of):
    with pytest.raises(UserError, match="bessel_j0"):
        from_torch(network_of(lambda _, x: torch.special.bessel_j0(x)), SHAPE)


def test_a_bias_is_one_constant(network_of):
    """No reshape of a constant is left around it, or nothing would fold into it."""
    mod = from_torch(network_of(lambda net, x: net.conv(x), conv=nn.Conv2d(3, 4, 1)), SHAPE)
    add = calls(mod, "relax.add")[0]
    assert constant_value(add.args[1]).shape == (1, 4, 1, 1)
    assert not calls(mod, "relax.reshape")


def test_two_inputs_of_a_layer_keep_apart(network_of, agrees):
    """One layer called twice makes two values; both get names of their own."""
    network = network_of(lambda net, x: net.conv(torch.relu(net.conv(x))), conv=nn.Conv2d(3, 3, 3, padding=1))
    names = [str(b.var.name) for b in Dataflow(from_torch(network, SHAPE)).bindings]
    assert len(set(names)) == len(names)
    agrees(network, SHAPE)
