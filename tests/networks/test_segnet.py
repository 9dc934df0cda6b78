"""SegNet's structure is that of VGG-16 and its mirror, and its cost what the ENet paper says."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from enet_tvm.errors import UserError
from enet_tvm.networks import SegNet, WeightsInfo, load_network, save_network
from enet_tvm.networks.summary import summarise
from enet_tvm.networks.table import NETWORKS
from enet_tvm.size import Size

PAPER_SIZE = NETWORKS["segnet"].costs.size
VGG_16 = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SegNet(5).eval()


def test_convolutions_are_vgg_16_and_its_mirror(network):
    convolutions = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    widths = [(conv.in_channels, conv.out_channels) for _, conv in convolutions]
    encoder = list(zip([3, *VGG_16], VGG_16, strict=False))
    mirrored = [(outputs, inputs) for inputs, outputs in encoder[::-1]]
    mirrored[-1] = (64, 5)
    assert widths == encoder + mirrored
    assert all(conv.kernel_size == (3, 3) and conv.padding == (1, 1) for _, conv in convolutions)
    assert [name for name, conv in convolutions if conv.bias is not None] == ["classifier"]
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(nn.BatchNorm2d) == kinds.count(nn.ReLU) == 25


def test_paper_counts_running_statistics_and_normalisation():
    """Both figures of the paper to their last digit, in the one convention that gives them (see the module)."""
    network = SegNet(20)
    stored = sum(value.numel() for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked"))
    summary = summarise(network, PAPER_SIZE)
    normalised = sum(torch.Size(layer.output_shape).numel() for layer in summary.layers if layer.kind == "BatchNorm2d")
    assert (stored, summary.total.flops + 2 * normalised) == (29_462_484, 286_029_127_680)
    assert f"{stored / 1e6:.2f} {(summary.total.flops + 2 * normalised) / 1e9:.2f}" == "29.46 286.03"
    assert (summary.paper["parameters"], summary.paper["flops"]) == (29_460_000, 286_030_000_000)


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize(
    ("classes", "parameters", "flops"), [(12, 29_441_996, 283_699_445_760), (20, 29_446_612, 285_822_812_160)]
)
def test_totals_at_the_papers_size(classes, parameters, flops):
    total = summarise(SegNet(classes), PAPER_SIZE).total
    assert (total.parameters, total.flops, total.output_shape) == (parameters, flops, (1, classes, 360, 640))


def test_flops_agree_with_pytorchs_counter(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, 40, 56))
    assert summarise(network, Size(56, 40)).total.flops == counter.get_total_flops()


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (2, 40, 56), (1, 48, 72), (1, 35, 33)])
def test_output_has_the_pictures_size_also_where_planes_become_odd(network, batch, height, width):
    with torch.no_grad():
        logits = network(torch.randn(batch, 3, height, width))
    assert logits.shape == (batch, 5, height, width)
    assert logits.std() > 1e-3


def test_decoder_unpools_by_the_indices_of_its_stage(network):
    """A forward pass written out anew, on a picture whose planes become odd."""
    x = torch.randn(1, 3, 40, 56)
    state = network.state_dict()

    def convolve(x, stage, count):
        for i in range(1, count + 1):
            prefix = f"{stage}.conv{i}"
            x = F.conv2d(x, state[f"{prefix}.0.weight"], padding=1)
            norm = [state[f"{prefix}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
            x = F.batch_norm(x, *norm, eps=1e-5).relu()
        return x

    kept = []
    with torch.no_grad():
        expected = network(x)
        for stage, count in zip(range(1, 6), (2, 2, 3, 3, 3), strict=True):
            x = convolve(x, f"encoder{stage}", count)
            size = x.shape[2:]
            x, indices = F.max_pool2d(x, 2, return_indices=True)
            kept.append((indices, size))
        for stage, count in zip(range(5, 0, -1), (3, 3, 3, 2, 1), strict=True):
            indices, size = kept[stage - 1]
            x = convolve(F.max_unpool2d(x, indices, 2, output_size=size), f"decoder{stage}", count)
        x = F.conv2d(x, state["classifier.weight"], state["classifier.bias"], padding=1)
    torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 24, 64), (1, 3, 64, 24)])
def test_too_small_a_picture(network, shape):
    with pytest.raises(UserError, match=r"64.*is too small; take 32x32"):
        network(torch.zeros(shape))


@pytest.mark.slow
def test_weights_come_back(network, tmp_path):
    path = tmp_path / "w.safetensors"
    palette = tuple((i, i, i) for i in range(5))
    save_network(network, WeightsInfo("segnet", tuple("abcde"), palette, (0, 0, 0), (1, 1, 1)), path)
    loaded = load_network(path)
    assert isinstance(loaded, SegNet)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in network.state_dict().items())
