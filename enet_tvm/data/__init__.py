"""Data sets as sequences of (RGB picture, label map) pairs, their classes, and paired transforms."""

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.classes import CAMVID, ClassSet

__all__ = ["CAMVID", "CamVid", "ClassSet"]
