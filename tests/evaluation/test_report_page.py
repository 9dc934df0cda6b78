"""Pages of reports: all is text there, they need nothing of the net, and the plots are to scale."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enet_tvm.errors import UserError
from enet_tvm.evaluation.report_page import (
    Bar,
    Bars,
    Legend,
    Matrix,
    Page,
    Pictures,
    Section,
    Sentences,
    render,
    table_of,
    write_page,
)

EVIL = "\"><script>alert('x')</script>{{ 7 * 6 }}<img src=http://example.com/a.png onerror=1>&amp;"


class Reader(HTMLParser):
    """Collects elements, their attributes and the text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.open = [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(text, picture=None):
    picture = picture or Image.new("RGB", (4, 2), (10, 200, 30))
    parts = [
        table_of(("name", text), [(text, "1.0")], text),
        Bars(text, (Bar(text, 2.0, text, (1.0, 4.0)), Bar("b", 1.0, "1"))),
        Matrix(text, (text, "b"), (text, "b"), ((0.81, 0.002), (math.nan, 1.0))),
        Legend(((text, (1, 2, 3)),)),
        Pictures(text, ((text, picture, False), ("photo", picture, True))),
        Sentences((text,)),
        Sentences((text,), warning=True),
    ]
    return Page(text, [Section(text, parts)], {text: text}, text)


@given(st.just(EVIL) | st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_whatever_it_holds_is_text(text):
    plain, given_text = Reader(render(page_of("plain"))), Reader(render(page_of(text)))
    assert [tag for tag, _ in given_text.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(attributes) for _, attributes in given_text.elements] == [
        sorted(attributes) for _, attributes in plain.elements
    ]
    assert given_text.text.count(text) >= 13
    assert not given_text.open


def test_nothing_comes_from_the_net_and_nothing_runs():
    source = render(page_of("plain"))
    page = Reader(source)
    assert not re.search(r"(?:https?:)?//|@import|url\(", source)
    assert not page.attributes("script")
    assert all(attributes.get("src", "data:").startswith("data:") for _, attributes in page.elements)
    policies = [meta["content"] for meta in page.attributes("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert any("width=device-width" in meta.get("content", "") for meta in page.attributes("meta"))
    assert "prefers-color-scheme: dark" in source


def test_bars_are_to_scale():
    widths = [rect["width"] for rect in Reader(render(page_of("plain"))).attributes("rect") if rect["class"] == "bar"]
    assert widths == ["50.0%", "25.0%"]  # of 4, where the spread ends
    lines = Reader(render(page_of("plain"))).attributes("line")
    assert (lines[0]["x1"], lines[0]["x2"]) == ("25.0%", "100.0%")


@given(st.lists(st.floats(0, 1e300), max_size=5), st.none() | st.floats(0, 1e300))
def test_no_bar_is_longer_than_the_scale(values, full):
    bars = Bars("", tuple(Bar(str(value), value, "") for value in values), full)
    lengths = [bars.percent(value) for value in values]
    assert all(0 <= length <= 100 for length in lengths)
    if full is None and values and max(values) > 0:
        assert max(lengths) == 100


def test_a_matrix_shows_shares_and_leaves_out_what_there_is_none_of():
    cells = re.findall(r'<td style="--shade: (\d+)"( class="strong")?>([^<]*)</td>', render(page_of("plain")))
    assert cells == [("90", ' class="strong"', "81"), ("4", "", ""), ("0", "", ""), ("100", ' class="strong"', "100")]


def test_pictures_are_embedded_and_labels_lose_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    sources = [image["src"] for image in Reader(render(page_of("plain", Image.fromarray(pixels)))).attributes("img")]
    kinds, decoded = [], []
    for source in sources:
        kind, data = source.removeprefix("data:image/").split(";base64,")
        kinds.append(kind)
        decoded.append(Image.open(io.BytesIO(base64.b64decode(data))))
    assert kinds == ["png", "jpeg"]
    assert (np.asarray(decoded[0]) == pixels).all()
    assert decoded[1].size == (7, 5)


def test_names_that_are_no_utf8_are_written(tmp_path):
    write_page(tmp_path / "p.html", page_of("stra\udcdfe"))
    assert "<title>stra?e</title>" in (tmp_path / "p.html").read_text("utf-8")


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "file" / "p.html", page_of("plain"))
