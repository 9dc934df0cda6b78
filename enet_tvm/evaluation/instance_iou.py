"""The instance-weighted IoU (iIoU) of the Cityscapes benchmark: small instances weigh as much as large ones."""

from __future__ import annotations

import numpy as np

from enet_tvm.data.classes import INSTANCE_STEP, ClassSet
from enet_tvm.evaluation.metrics import ConfusionMatrix, InstanceMetrics, false_positives, known_mean


class InstanceIou:
    """Counts true positives and false negatives with each pixel weighted by (average size) / (size of its instance).

    Parameters
    ----------
    class_set : ClassSet
        Classes, whose `instance_shares` hold the average sizes. They are fixed figures, for Cityscapes those of its own
        evaluation, not averages of the pictures at hand, and they scale with the picture: at 2048x1024 they are the published
        ones.

    Notes
    -----
    As Cordts et al. (2016, section 4.2) define it and the benchmark's evaluation computes it: with w the weight,
    ``iTP / (iTP + FP + iFN)``, where iTP and iFN sum w over the rightly and wrongly labelled pixels of all instances.
    FP comes unweighted from the confusion matrix. Objects that were labelled as a group belong to no instance, so they
    are no true positives, nor are they false ones. For a category a pixel is right when it is given any class of the
    category; only categories all of whose classes have instances count.
    """

    def __init__(self, class_set: ClassSet) -> None:
        if not class_set.instance_shares:
            raise ValueError(f"{class_set.name} has no instances")
        self.class_set = class_set
        self.shares = np.array(class_set.instance_shares)
        names = class_set.category_names
        # Without categories, the class sums serve alone.
        self.category_of = np.array([names.index(name) for name in class_set.categories], int)
        self.right, self.weight = np.zeros(len(class_set)), np.zeros(len(class_set))
        self.category_right = np.zeros(len(class_set))
        self.instances = 0

    def update(self, prediction: np.ndarray, instances: np.ndarray) -> None:
        """Count one picture.

        Parameters
        ----------
        prediction : ndarray
            H x W predicted classes.
        instances : ndarray
            H x W integer map of instances, ``class * INSTANCE_STEP + number`` and -1 where there is no instance.
        """
        if prediction.shape != instances.shape:
            raise ValueError(f"prediction {prediction.shape} and instances {instances.shape} differ in shape")
        inside = instances >= 0
        keys, place = np.unique(instances[inside], return_inverse=True)
        classes = keys // INSTANCE_STEP
        predicted, truth = prediction[inside].astype(int), classes[place]
        sizes = np.bincount(place, minlength=len(keys))
        weights = self.shares[classes] * prediction.size / sizes

        def collect(hits: np.ndarray) -> np.ndarray:
            per_instance = np.bincount(place, weights=hits, minlength=len(keys)) * weights
            return np.bincount(classes, weights=per_instance, minlength=len(self.class_set))

        self.right += collect(predicted == truth)
        self.weight += collect(np.ones(len(truth), bool))
        if len(self.category_of):
            self.category_right += collect(self.category_of[predicted] == self.category_of[truth])
        self.instances += len(keys)

    def metrics(self, confusion: ConfusionMatrix) -> InstanceMetrics:
        """Return the figures of everything counted so far; `confusion` counted the same predictions."""
        counted = self.shares > 0
        iou = _weighted_iou(self.right, self.weight, false_positives(confusion.counts), counted)
        rows = [self.category_of == number for number in range(len(self.class_set.category_names))]
        category_iou = _weighted_iou(
            np.array([self.category_right[row].sum() for row in rows]),
            np.array([self.weight[row].sum() for row in rows]),
            false_positives(confusion.by_category()),
            np.array([counted[row].all() for row in rows], bool),
        )
        return InstanceMetrics(
            class_iou=tuple(map(float, iou)),
            category_iou=tuple(map(float, category_iou)),
            class_mean=known_mean(iou),
            category_mean=known_mean(category_iou),
            instances=self.instances,
        )


def _weighted_iou(right: np.ndarray, weight: np.ndarray, false: np.ndarray, counted: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(counted, right / (weight + false), np.nan)
