"""The report: what was chosen, what the pictures show, and that it is the evaluation that is told of."""

import csv
import dataclasses
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.data.classes import ClassSet
from enet_tvm.data.source import LabelledStreet
from enet_tvm.errors import UserError
from enet_tvm.evaluation.evaluate import evaluate, predict
from enet_tvm.evaluation.predictors import artifact_predictor, weights_predictor
from enet_tvm.evaluation.report import PictureScore, Report, draw_confusion, draw_sheet, select
from enet_tvm.size import Size

TWO = ClassSet("two", ("left", "right"), ((200, 0, 0), (0, 200, 0)), 255)
FILES = {"report.md", "report.html", "confusion.png", "sheet.png", "pictures.csv"}


def scores(values):
    return [PictureScore(index, value, value) for index, value in enumerate(values)]


def test_the_extremes_and_the_middle_are_chosen():
    chosen = select(scores([0.5, 0.1, 0.9, 0.3, float("nan"), 0.7, 0.2, 0.8, 0.4, 0.6]))
    found = {name: sorted(score.miou for _, score in group) for name, group in groups(chosen)}
    assert found == {"worst": [0.1, 0.2, 0.3], "median": [0.4, 0.5, 0.6], "best": [0.7, 0.8, 0.9]}


def groups(chosen):
    names = list(dict.fromkeys(name for name, _ in chosen))
    return [(name, [entry for entry in chosen if entry[0] == name]) for name in names]


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=90))
def test_no_picture_is_shown_twice_and_neighbours_are_spread(values):
    chosen = select(scores(values))
    indices = sorted(score.index for _, score in chosen)
    assert len(set(indices)) == len(indices) <= 9
    rated = [value for value in values if value == value]
    assert bool(chosen) == bool(rated)
    if rated:
        assert min(score.miou for _, score in chosen) == min(rated)
    assert all(b - a > len(values) // 20 for a, b in pairwise(indices))


def halves(wrong=0):
    """Return a picture, its labels, and a prediction whose first rows are wrong."""
    labels = np.zeros((20, 40), np.uint8)
    labels[:, 20:] = 1
    labels[-5:] = 255
    prediction = labels.copy()
    prediction[-5:] = 0
    prediction[:wrong] = 1 - labels[:wrong]
    return Image.new("RGB", (40, 20), (90, 90, 90)), labels, prediction


def test_scores_are_of_labelled_pixels():
    report = Report(TWO)
    _, labels, prediction = halves(wrong=3)
    report.observe(0, prediction, labels)
    report.observe(1, prediction, np.full_like(labels, 255))
    assert report.scores[0].accuracy == pytest.approx(0.8)
    assert report.scores[0].miou == pytest.approx(12 / 18)
    assert np.isnan(report.scores[1].miou)
    assert report.confusion.counts.tolist() == [[240, 60], [60, 240]]


def test_the_sheet_shows_errors_in_red_and_void_in_blue():
    picture, labels, prediction = halves(wrong=6)
    sheet = np.asarray(draw_sheet([("caption", picture, labels, prediction)], TWO)).astype(int)
    cells = [sheet[78:268, left : left + 380] for left in (24, 414, 804, 1194)]
    assert (abs(cells[0] - 90) <= 2).all()
    assert (cells[1][:140, :185] == (200, 0, 0)).all()
    assert (cells[1][150:] == 0).all()
    assert (cells[2][:50, :185] == (0, 200, 0)).all()
    assert (cells[2][65:140, :185] == (200, 0, 0)).all()
    red, green, blue = cells[3][:50].mean(axis=(0, 1))
    assert red > 2 * max(green, blue)
    assert np.ptp(cells[3][75:125].reshape(-1, 3), axis=1).max() < 10
    assert cells[3][150:, :, 2].mean() > cells[3][150:, :, 0].mean() + 40


@pytest.mark.quick_cases(1)
@pytest.mark.parametrize("count", [2, 11, 37])
def test_confusion_matrices_of_any_size_are_drawn_darker_where_there_is_more(count, tmp_path):
    classes = ClassSet("many", tuple(f"class number {i}" for i in range(count)), ((0, 0, 0),) * count, 255)
    report = Report(classes)
    labels = np.arange(count, dtype=np.uint8).repeat(10).reshape(count, 10)
    prediction = labels.copy()
    prediction[0, :4] = 1
    report.observe(0, prediction, labels)
    draw_confusion(report.confusion, report.confusion.metrics(), tmp_path / "confusion.png")
    image = np.asarray(Image.open(tmp_path / "confusion.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero(abs(image - (8, 48, 107)).sum(axis=2) < 12)  # where all pixels of a class were taken for it
    cell = 30
    assert len(rows) > 0.6 * (count - 1) * cell**2
    if count > 2:
        assert np.corrcoef(rows, columns)[0, 1] > 0.95, "the diagonal"


def test_names_are_no_formulas(tmp_path):
    classes = ClassSet("odd", ("$a", "b$ \\frac{", "日本"), ((0, 0, 0),) * 3, 255)
    report = Report(classes)
    labels = np.array([[0, 1, 2]], np.uint8)
    report.observe(0, labels, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(report.confusion, report.confusion.metrics(), tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").exists()


@pytest.mark.slow
def test_a_report_of_weights_and_one_of_what_was_compiled_from_them(compiled_enet, tmp_path):
    samples = LabelledStreet(Size(64, 48), 5, 0)
    told = {}
    for model in (weights_predictor(compiled_enet.weights, 1), artifact_predictor(compiled_enet.directory, threads=1)):
        report = Report(samples.class_set)
        how = (samples.class_set, model.mean, model.std, model.size)
        metrics = evaluate(model.forward, samples, *how, None, report.observe)
        assert report.confusion.metrics() == dataclasses.replace(metrics)
        folder = tmp_path / str(len(told))
        folder.mkdir()
        (folder / "mine.txt").write_text("kept")
        paths = report.write(
            folder,
            metrics,
            samples,
            lambda picture, shape, m=model, h=how: predict(m.forward, picture, shape, *h),
            "A title",
            {"x": "y"},
            command="enet-tvm <this>",
        )
        assert {path.name for path in folder.iterdir()} == FILES | {"mine.txt"}
        assert {path.name for path in paths} == FILES
        text = (folder / "report.md").read_text()
        assert text.startswith("# A title\n")
        assert f"| mean IoU | {100 * metrics.miou:.2f} |" in text
        assert all(f"\n| {name} | " in text for name in samples.class_set.names)
        assert "- command: `enet-tvm <this>`" in text
        page = (folder / "report.html").read_text()
        assert f'<th scope="row">mean IoU</th><td>{100 * metrics.miou:.2f}</td>' in page
        assert all(f'<th scope="row">{name}</th>' in page for name in samples.class_set.names)
        assert "<pre>enet-tvm &lt;this&gt;</pre>" in page
        assert page.count("<img ") == 4 * len(select(report.scores))
        rows = list(csv.reader((folder / "pictures.csv").open()))
        assert len(rows) == 6
        assert [row[1] for row in rows[1:]] == sorted(row[1] for row in rows[1:])
        told[folder] = metrics
    one, other = told.values()
    assert one.global_accuracy == pytest.approx(other.global_accuracy, abs=2e-3)


def test_a_report_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    report = Report(TWO)
    picture, labels, prediction = halves()
    report.observe(0, prediction, labels)
    with pytest.raises(UserError, match="cannot write"):
        report.write(tmp_path / "file", report.confusion.metrics(), [(picture, labels)], lambda *_: prediction, "title", {})
