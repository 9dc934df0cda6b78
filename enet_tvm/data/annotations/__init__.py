"""Annotations by outlines, of COCO, labelme and CVAT, drawn as masks of numbers."""
