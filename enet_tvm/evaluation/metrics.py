"""Metrics of semantic segmentation, from one confusion matrix; void pixels count nowhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from enet_tvm.data.classes import ClassSet


@dataclass(frozen=True)
class InstanceMetrics:
    """Instance-weighted IoU, each in 0..1, and NaN where there are no instances.

    Attributes
    ----------
    class_iou, category_iou : tuple of float
        IoU of each class and of each category.
    class_mean, category_mean : float
        Mean of `class_iou` and of `category_iou`, over those that have instances.
    instances : int
        Number of instances that were counted.
    """

    class_iou: tuple[float, ...]
    category_iou: tuple[float, ...]
    class_mean: float
    category_mean: float
    instances: int


@dataclass(frozen=True)
class SegmentationMetrics:
    """Figures of one evaluation, each in 0..1.

    Attributes
    ----------
    classes : tuple of str
        Class names.
    class_iou, class_accuracy : tuple of float
        IoU and accuracy of each class; NaN for a class that does not occur in the labels, and such classes are left out of the
        means. (Pixels that are wrongly taken for one lower the figures of the classes that they are of.)
    miou, class_average, global_accuracy : float
        Mean of `class_iou`, mean of `class_accuracy`, and the share of labelled pixels that are right.
    pixels : int
        Number of labelled pixels.
    categories : tuple of str
        Category names; empty if the class set has none.
    category_iou : tuple of float
        IoU when the classes of a category count as one; NaN as in `class_iou`.
    category_miou : float
        Mean of `category_iou`.
    instance : InstanceMetrics or None
        The instance-weighted figures, if the data have instances.
    """

    classes: tuple[str, ...]
    class_iou: tuple[float, ...]
    class_accuracy: tuple[float, ...]
    miou: float
    class_average: float
    global_accuracy: float
    pixels: int
    categories: tuple[str, ...] = ()
    category_iou: tuple[float, ...] = ()
    category_miou: float = math.nan
    instance: InstanceMetrics | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of which there is no labelled pixel."""
        return tuple(name for name, accuracy in zip(self.classes, self.class_accuracy, strict=True) if math.isnan(accuracy))

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them (NaN becomes null); those that the data do not have are left out."""
        classes: dict[str, dict[str, float | None]] = {
            name: {"iou": _json(iou), "accuracy": _json(accuracy)}
            for name, iou, accuracy in zip(self.classes, self.class_iou, self.class_accuracy, strict=True)
        }
        categories = {name: {"iou": _json(iou)} for name, iou in zip(self.categories, self.category_iou, strict=True)}
        figures: dict[str, Any] = {
            "miou": _json(self.miou),
            "class_average": _json(self.class_average),
            "global_accuracy": _json(self.global_accuracy),
            "pixels": self.pixels,
            "absent": list(self.absent),
            "classes": classes,
        }
        if self.categories:
            figures |= {"category_miou": _json(self.category_miou), "categories": categories}
        if self.instance is not None:
            figures["class_iiou"] = _json(self.instance.class_mean)
            figures["category_iiou"] = _json(self.instance.category_mean)
            figures["instances"] = self.instance.instances
            for rows, weighted in ((classes, self.instance.class_iou), (categories, self.instance.category_iou)):
                for row, iou in zip(rows.values(), weighted, strict=True):
                    row["iiou"] = _json(iou)
        return figures


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
        import torch
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        if prediction.shape != labels.shape:
            raise ValueError(f"prediction {prediction.shape} and labels {labels.shape} differ in shape")
        if not labels.size:
            return
        counts = multiclass_confusion_matrix(
            torch.tensor(prediction),
            torch.tensor(labels),
            num_classes=len(self.class_set),
            ignore_index=self.class_set.ignore_index,
            validate_args=False,
        )
        self.counts += counts.numpy()

    def by_category(self) -> np.ndarray:
        """Return the counts with the classes of each category taken together, in the order of `category_names`."""
        member = np.array([[name == own for own in self.class_set.categories] for name in self.class_set.category_names])
        member = member.reshape(-1, len(self.class_set)).astype(np.int64)
        return member @ self.counts @ member.T

    def metrics(self) -> SegmentationMetrics:
        """Return the figures of everything counted so far."""
        right = np.diag(self.counts).astype(float)
        total = int(self.counts.sum())
        with np.errstate(invalid="ignore"):
            accuracy = right / self.counts.sum(axis=1)
        iou, category_iou = (_iou(counts) for counts in (self.counts, self.by_category()))
        return SegmentationMetrics(
            classes=self.class_set.names,
            class_iou=tuple(map(float, iou)),
            class_accuracy=tuple(map(float, accuracy)),
            miou=known_mean(iou),
            class_average=known_mean(accuracy),
            global_accuracy=float(right.sum() / total) if total else math.nan,
            pixels=total,
            categories=self.class_set.category_names,
            category_iou=tuple(map(float, category_iou)),
            category_miou=known_mean(category_iou),
        )


def false_positives(counts: np.ndarray) -> np.ndarray:
    """Return the pixels that were wrongly taken for each class of a confusion matrix."""
    return counts.sum(axis=0) - np.diag(counts)


def known_mean(values: np.ndarray) -> float:
    """Return the mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _iou(counts: np.ndarray) -> np.ndarray:
    """Return the IoU of each class; NaN for one without labelled pixels, whatever was taken for it."""
    labelled = counts.sum(axis=1)
    return np.where(labelled > 0, np.diag(counts) / np.maximum(1, labelled + false_positives(counts)), np.nan)


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value
