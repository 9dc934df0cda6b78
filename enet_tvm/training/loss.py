"""The segmentation loss: class-weighted cross-entropy and a surrogate of the IoU, both blind to void pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from enet_tvm.data.classes import ClassSet
from enet_tvm.errors import UserError
from enet_tvm.training.processes import Processes
from enet_tvm.training.recipe import LossRecipe


def class_weights(histogram: np.ndarray, constant: float = 1.02) -> np.ndarray:
    """Return the paper's class weights ``1 / ln(c + p)``.

    Parameters
    ----------
    histogram : ndarray
        Number of labelled pixels of each class.
    constant : float
        Constant c of the formula, greater than one; 1.02 in the paper.

    Returns
    -------
    ndarray
        float64 weights, scaled so that the mean over the labelled pixels is one and the constant does not change the
        size of the loss.
    """
    total = histogram.sum()
    share = histogram / total if total else np.full(len(histogram), 1 / len(histogram))
    weights = 1 / np.log(constant + share)
    return weights / (weights * share).sum()


def explicit_class_weights(recipe: LossRecipe, class_set: ClassSet) -> np.ndarray | None:
    """Return the weights that a recipe gives the classes itself, float64 in their order; None if it gives none.

    Raises
    ------
    UserError
        When they are not as many as the classes, name none of them, or are all zero.
    """
    given = recipe.class_weights
    if given is None:
        return None
    if isinstance(given, dict):
        if unknown := [name for name in given if name not in class_set.names]:
            raise UserError(
                f"the recipe's class_weights name '{unknown[0]}', and the classes are {', '.join(class_set.names)}; correct it"
            )
        weights = np.array([given.get(name, 1.0) for name in class_set.names])
    else:
        weights = np.array(given)
    if len(weights) != len(class_set):
        raise UserError(
            f"the recipe's class_weights are {len(weights)} numbers, and {class_set.name} has {len(class_set)} classes; "
            "give one for each, or a table by name"
        )
    if not weights.any():
        raise UserError("the recipe's class_weights are all zero, so that nothing would be learnt; give some class a weight")
    return weights


def lovasz_softmax(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the Lovasz extension of the Jaccard loss, averaged over the classes that occur.

    Parameters
    ----------
    probabilities : Tensor
        classes x pixels float32 probabilities.
    labels : Tensor
        Class of each pixel, int64, no void among them.

    Notes
    -----
    Berman, Triki, Blaschko, 2018, arXiv 1705.08790, equations 8 and 9 and algorithm 1.
    """
    truth = F.one_hot(labels, probabilities.shape[0]).T.to(probabilities.dtype)
    errors = (truth - probabilities).abs()
    order = descending(errors.detach())
    errors = errors.gather(1, order)
    with torch.no_grad():
        truth = truth.gather(1, order)
        total = truth.sum(dim=1, keepdim=True)
        seen = truth.cumsum(dim=1)
        ranks = torch.arange(1, truth.shape[1] + 1, dtype=truth.dtype, device=truth.device)
        jaccard = 1 - (total - seen) / (total + ranks - seen)
        steps = jaccard.diff(dim=1, prepend=torch.zeros_like(total))
        present = total[:, 0] > 0
    losses = (errors * steps).sum(dim=1)
    return losses[present].mean() if present.any() else losses.sum() * 0


def descending(values: Tensor) -> Tensor:
    """Return the order in which each row of a matrix descends; of equal values the first comes first.

    Parameters
    ----------
    values : Tensor
        rows x columns float32 values, none of them negative or NaN.

    Returns
    -------
    Tensor
        rows x columns int64 indices of columns.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return values.argsort(dim=1, descending=True, stable=True)
    # The bits of floats that are not negative ascend with them. Whole numbers that hold value and place are sorted by
    # NumPy's vector code in a sixth of the time that PyTorch takes to sort both.
    keys = np.empty(values.shape, np.int64)
    places = np.arange(values.shape[1])
    for key, bits in zip(keys, values.contiguous().numpy().view(np.int32), strict=True):
        key[:] = np.int32(0x7FFFFFFF) - bits
        key <<= 32
        key |= places
        key.sort()
    keys &= 0xFFFFFFFF
    return torch.from_numpy(keys)


class SegmentationLoss(nn.Module):
    """Weighted sum of cross-entropy and Lovasz-softmax, computed in float32.

    Parameters
    ----------
    recipe : LossRecipe
        Terms of the loss and their weights.
    histogram : ndarray
        Number of labelled pixels of each class in the training set.
    ignore_index : int
        Label that counts nowhere.
    processes : Processes
        Processes that train together. Each gets a loss whose mean over them is the cross-entropy of all their pixels. (The IoU
        of a Lovasz term stays that of each process's own pixels.)
    weights : ndarray, optional
        Weights of the classes, as `explicit_class_weights` returns them, in the place of those of the histogram.
    """

    weights: Tensor | None

    def __init__(
        self,
        recipe: LossRecipe,
        histogram: np.ndarray,
        ignore_index: int,
        processes: Processes | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.processes = processes or Processes()
        self.ignore_index = ignore_index
        if weights is None and recipe.class_weight_constant is not None:
            weights = class_weights(histogram, recipe.class_weight_constant)
        self.register_buffer("weights", None if weights is None else torch.from_numpy(weights).float())

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of N x C x H x W logits against N x H x W labels; zero when every pixel is void."""
        logits = logits.float()
        labels = labels.long()
        known = labels != self.ignore_index
        alone = self.processes.count == 1
        if alone and not known.any():
            return logits.sum() * 0
        # Of several processes each must take part in what follows, with a gradient for each parameter, even if it is zero.
        loss = logits.new_zeros(()) if alone else logits.sum() * 0
        if self.recipe.cross_entropy:
            loss = loss + self.recipe.cross_entropy * self._cross_entropy(logits, labels, known)
        if self.recipe.lovasz:
            step = self.recipe.lovasz_stride
            known, labels, logits = (tensor[..., step // 2 :: step, step // 2 :: step] for tensor in (known, labels, logits))
            probabilities = logits.softmax(dim=1).movedim(1, -1)[known].T.contiguous()
            loss = loss + self.recipe.lovasz * lovasz_softmax(probabilities, labels[known])
        return loss

    def _cross_entropy(self, logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
        ignored, smoothing, hardest = self.ignore_index, self.recipe.label_smoothing, self.recipe.hardest
        if self.processes.count == 1 and hardest == 1:
            return F.cross_entropy(logits, labels, self.weights, ignore_index=ignored, label_smoothing=smoothing)
        losses = F.cross_entropy(
            logits, labels, self.weights, ignore_index=ignored, label_smoothing=smoothing, reduction="none"
        )[known]
        weights = torch.ones_like(losses) if self.weights is None else self.weights[labels[known]]
        if hardest < 1:
            losses, order = losses.topk(math.ceil(hardest * len(losses)), sorted=False)
            weights = weights[order]
        return losses.sum() * self.processes.count / self.processes.sum(weights.sum()).clamp(min=1e-9)
