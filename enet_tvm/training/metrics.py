"""Metrics of semantic segmentation, from one confusion matrix; void pixels count nowhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from enet_tvm.data.classes import ClassSet


@dataclass(frozen=True)
class SegmentationMetrics:
    """Figures of one evaluation, each in 0..1.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    class_iou, class_accuracy : tuple of float
        Per class; NaN for a class that occurs neither in the labels nor in the predictions (IoU), or not in the
        labels (accuracy), and such classes are left out of the means.
    miou, class_average, global_accuracy : float
        Mean of `class_iou`, mean of `class_accuracy`, and the share of labelled pixels that are right.
    pixels : int
        Labelled pixels.
    """

    classes: tuple[str, ...]
    class_iou: tuple[float, ...]
    class_accuracy: tuple[float, ...]
    miou: float
    class_average: float
    global_accuracy: float
    pixels: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them (NaN becomes null)."""
        per_class = {
            name: {"iou": _json(iou), "accuracy": _json(accuracy)}
            for name, iou, accuracy in zip(self.classes, self.class_iou, self.class_accuracy, strict=True)
        }
        return {
            "miou": _json(self.miou),
            "class_average": _json(self.class_average),
            "global_accuracy": _json(self.global_accuracy),
            "pixels": self.pixels,
            "classes": per_class,
        }


class ConfusionMatrix:
    """Counts pixels by label (row) and prediction (column).

    Parameters
    ----------
    class_set : ClassSet
        Classes and the ignored label.
    """

    def __init__(self, class_set: ClassSet) -> None:
        self.class_set = class_set
        self.counts = np.zeros((len(class_set), len(class_set)), np.int64)

    def update(self, prediction: np.ndarray, labels: np.ndarray) -> None:
        """Count one label map (any shape, integers) against another of the same shape."""
        if prediction.shape != labels.shape:
            raise ValueError(f"prediction {prediction.shape} and labels {labels.shape} differ in shape")
        classes = len(self.class_set)
        known = labels != self.class_set.ignore_index
        pairs = labels[known].astype(np.int64) * classes + prediction[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def metrics(self) -> SegmentationMetrics:
        """Return the figures of everything counted so far."""
        right = np.diag(self.counts).astype(float)
        labelled, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        total = int(self.counts.sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = right / (labelled + predicted - right)
            accuracy = right / labelled
        return SegmentationMetrics(
            classes=self.class_set.names,
            class_iou=tuple(map(float, iou)),
            class_accuracy=tuple(map(float, accuracy)),
            miou=_mean(iou),
            class_average=_mean(accuracy),
            global_accuracy=float(right.sum() / total) if total else math.nan,
            pixels=total,
        )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
