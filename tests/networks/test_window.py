"""Window pooling and unpooling against PyTorch's own, on ties, negatives, several sizes and batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn import functional as F

from enet_tvm.errors import UserError
from enet_tvm.networks import ENet
from enet_tvm.networks.window import WindowMaxPool2d, WindowMaxUnpool2d, to_window_form

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)).map(
    lambda s: (s[0], s[1], 2 * s[2], 2 * s[3])
)
FEW_VALUES = st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1.0])  # ties in nearly every window
ANY_VALUES = st.floats(-1e6, 1e6, width=32)


@given(hnp.arrays(np.float32, SHAPES, elements=st.one_of(FEW_VALUES, ANY_VALUES), fill=FEW_VALUES))
@settings(max_examples=80, deadline=None)
def test_pooling_and_unpooling_equal_pytorchs(array):
    x = torch.from_numpy(array)
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    pooled, window = WindowMaxPool2d()(x)
    assert torch.equal(pooled, expected)
    assert window.dtype == torch.uint8
    rows = torch.arange(pooled.shape[2])[:, None] * 2 + window // 2
    columns = torch.arange(pooled.shape[3]) * 2 + window % 2
    assert torch.equal(rows * x.shape[3] + columns, indices), "the window index points where PyTorch's index does"
    assert torch.equal(WindowMaxUnpool2d()(pooled, window), F.max_unpool2d(pooled, indices, 2))
    other = torch.randn_like(pooled)
    assert torch.equal(WindowMaxUnpool2d()(other, window), F.max_unpool2d(other, indices, 2))


def test_first_of_equal_values_wins():
    assert WindowMaxPool2d()(torch.full((1, 1, 2, 2), -3.0))[1].item() == 0
    assert WindowMaxPool2d()(torch.tensor([[[[1.0, 5.0], [5.0, 5.0]]]]))[1].item() == 1


@pytest.mark.parametrize("shape", [(1, 1, 3, 4), (1, 2, 4, 3), (2, 3, 7, 5)])
def test_odd_planes_lose_their_last_row_or_column_and_get_zeros_back(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected, indices = F.max_pool2d(x, 2, return_indices=True)
    pooled, window = WindowMaxPool2d()(x)
    assert torch.equal(pooled, expected)
    whole = WindowMaxUnpool2d()(pooled, window, x.shape[2:])
    assert torch.equal(whole, F.max_unpool2d(pooled, indices, 2, output_size=x.shape[2:]))


def test_operator_itself_takes_whole_windows_only():
    for shape in ((1, 1, 3, 4), (1, 1, 4, 3), (1, 4, 4)):
        with pytest.raises(ValueError, match="even H and W"):
            torch.ops.enet_tvm.max_pool2d_with_window(torch.zeros(shape))


def test_size_that_was_never_pooled():
    pooled, window = WindowMaxPool2d()(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(6, 4\) does not pool to \(2, 2\)"):
        WindowMaxUnpool2d()(pooled, window, (6, 4))


@pytest.mark.parametrize("batch", [1, 3])
def test_network_in_window_form_computes_the_same(batch):
    torch.manual_seed(0)
    network = ENet(4).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    windowed = to_window_form(network)
    x = torch.randn(batch, 3, 24, 40)
    with torch.no_grad():
        assert torch.equal(windowed(x), network(x))
    assert not any(isinstance(m, nn.MaxUnpool2d) or getattr(m, "return_indices", False) for m in windowed.modules())
    assert isinstance(network.bottleneck1_0.pool, nn.MaxPool2d), "the network itself stays as it was"
    assert all(torch.equal(value, before[key]) for key, value in windowed.state_dict().items())


@pytest.mark.parametrize(
    "module", [nn.MaxPool2d(3, return_indices=True), nn.MaxPool2d(2, 1, return_indices=True), nn.MaxUnpool2d((2, 3))]
)
def test_other_windows_are_refused(module):
    with pytest.raises(UserError, match="'0' does not pool in 2x2 windows"):
        to_window_form(nn.Sequential(module))


def test_pooling_without_indices_stays():
    pool = nn.MaxPool2d(3)
    assert isinstance(to_window_form(nn.Sequential(pool))[0], nn.MaxPool2d)
