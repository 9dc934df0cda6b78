"""Data sets by name."""

import subprocess
import sys

import numpy as np
import pytest

from enet_tvm.data.classes import CAMVID
from enet_tvm.data.source import open_samples
from enet_tvm.errors import UserError
from enet_tvm.size import Size


def test_synthetic_splits_differ():
    train, val = (open_samples("synthetic", split, Size(96, 64)) for split in ("train", "val"))
    assert train.class_set is CAMVID
    assert len(train) > len(val) > 0
    assert train[0][1].shape == (64, 96)
    assert not np.array_equal(train[0][1], val[0][1])


def test_no_such_synthetic_split():
    with pytest.raises(UserError, match="no split 'holdout'"):
        open_samples("synthetic", "holdout")


def test_a_directory_is_camvid(tmp_path):
    with pytest.raises(UserError, match="no data set directory"):
        open_samples(str(tmp_path / "nowhere"), "train")


def test_class_sets_do_without_torch():
    program = "import sys, enet_tvm.data.classes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
