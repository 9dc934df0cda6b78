"""The network in portable form with convolutions of 8 bits, by ExecuTorch's own quantiser for XNNPACK."""

from __future__ import annotations

import torch

from enet_tvm.bench.runners.base import Case
from enet_tvm.bench.runners.calibrating import calibration_inputs


def quantised(network: torch.export.ExportedProgram, case: Case) -> torch.export.ExportedProgram:
    """Return an exported network with 8-bit convolutions; weights have a scale for each output channel.

    All else stays in float32: XNNPACK has no other PReLU, unpooling compares values for equality, and sums in 8 bits keep
    fewer labels.

    Raises
    ------
    ImportError
        When the package executorch is missing.
    UserError
        When there is no data set to calibrate on.
    """
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantiser, how = XNNPACKQuantizer(), get_symmetric_quantization_config(is_per_channel=True)
    for operator in (torch.ops.aten.conv2d.default, torch.ops.aten.conv_transpose2d.input):
        quantiser.set_operator_type(operator, how)
    observed = prepare_pt2e(network.module(), quantiser)
    with torch.inference_mode():
        for x in calibration_inputs(case):
            observed(torch.from_numpy(x))
    return torch.export.export(convert_pt2e(observed), (torch.zeros(case.input_shape),))
