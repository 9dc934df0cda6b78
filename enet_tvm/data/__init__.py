"""Data sets as sequences of (RGB picture, label map) pairs, their classes, and paired transforms."""

from enet_tvm.data.camvid import CamVid
from enet_tvm.data.cityscapes import Cityscapes
from enet_tvm.data.classes import CAMVID, CITYSCAPES, SUNRGBD, ClassSet
from enet_tvm.data.sunrgbd import SunRgbd

__all__ = ["CAMVID", "CITYSCAPES", "SUNRGBD", "CamVid", "Cityscapes", "ClassSet", "SunRgbd"]
