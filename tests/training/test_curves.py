"""The picture of the curves shows what the log holds."""

import numpy as np
import pytest
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.training.curves import draw_curves

BLUE = (0, 114, 178)


def history(epochs, stage="network"):
    rows = []
    for epoch in range(1, epochs + 1):
        rated = epoch % 2 == 0
        figures = dict.fromkeys(("val_miou", "val_class_average"), epoch / (epoch + 9) if rated else None)
        rows.append({"epoch": epoch, "stage": stage, "loss": 3 / epoch, "learning_rate": 1e-3, **figures})
        rows[-1]["val_global_accuracy"] = 0.9 if rated else None
    return rows


def drawn(rows, tmp_path):
    draw_curves(rows, tmp_path / "curves.png")
    return np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("epochs", [0, 1, 2, 7, 300])
def test_any_length_of_log_is_drawn(tmp_path, epochs):
    picture = drawn(history(epochs), tmp_path)
    assert picture.shape == (528, 1800, 3)
    blue = (abs(picture[70:] - BLUE).sum(axis=2) < 30).sum()
    assert (blue > 5) == (epochs > 0)


def test_the_loss_falls_from_left_to_right(tmp_path):
    picture = drawn(history(30), tmp_path)[:, :560]
    rows, columns = np.nonzero(abs(picture - BLUE).sum(axis=2) < 30)
    assert np.corrcoef(rows, columns)[0, 1] > 0.5  # rows count downwards


@pytest.mark.slow
def test_a_new_stage_is_marked(tmp_path):
    rows = history(8)
    plain = drawn(rows, tmp_path)
    for row in rows[4:]:
        row["stage"] = "decoder"
    marked = drawn(rows, tmp_path)
    assert (plain != marked).any(axis=(0, 2)).nonzero()[0].size > 20


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        draw_curves(history(1), tmp_path / "file" / "curves.png")
