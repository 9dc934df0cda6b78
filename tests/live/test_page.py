"""The page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from browser import Browser, Page, find_browser, running_browser
from live_server import Camera, Live, picture

from enet_tvm.live.access import Gate

pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="there is no Chromium; run: sudo apt install chromium"),
    pytest.mark.timeout(180),
]
Serve = Callable[..., Live]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser") / "profile") as running:
        yield running


@pytest.fixture
def still(serve: Serve, browser: Browser) -> tuple[Live, Camera, Page]:
    """A page that shows the first frame of a camera that takes the next one only when it is told to."""
    camera = Camera(paced=False)
    live = serve(camera.source())
    page = browser.open(live.address)
    page.wait_for("about !== null")
    live.shoot(camera)
    page.wait_for("shown !== null && !drawing && document.getElementById('message').hidden")
    return live, camera, page


def pixel(page: Page, x: int, y: int) -> np.ndarray:
    return np.array(page.evaluate(f"[...pen.getImageData({x}, {y}, 1, 1).data].slice(0, 3)"))


def slide(page: Page, percent: int) -> None:
    page.evaluate(
        f"(async () => {{ const slider = $('opacity'); slider.value = {percent};"
        " slider.dispatchEvent(new Event('input')); while (drawing) await drawing; })()"
    )


def complaints(page: Page) -> list[Any]:
    """What the browser's console shows as an error: exceptions, what the page's own policy forbids."""
    page.evaluate("0")
    return [
        event
        for event in page.events
        if event["method"] == "Runtime.exceptionThrown"
        or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
        or (event["method"] == "Runtime.consoleAPICalled" and event["params"]["type"] == "error")
    ]


def test_the_picture_changes_and_the_figures_move(serve: Serve, browser: Browser) -> None:
    page = browser.open(serve(Camera().source()).address)
    page.wait_for("shown !== null && figures !== null && figures.fps > 0")
    assert page.evaluate("$('state').textContent") == "live"
    assert "street" in page.evaluate("document.title")
    slide(page, 0)
    before, tiles = pixel(page, 90, 2), page.evaluate("$('tiles').textContent")
    frame = page.evaluate("shown.header.frame")
    page.wait_for(f"shown.header.frame > {frame + 1} && !drawing")
    page.wait_for(f"$('tiles').textContent !== {tiles!r}")
    page.wait_for(f"Math.abs(pen.getImageData(90, 2, 1, 1).data[1] - {before[1]}) > 20")
    # The plot is drawn: some of its pixels have the colour of the line.
    page.wait_for("figures.plot.filter(Boolean).length > 1")
    assert page.evaluate(
        "$('plot').getContext('2d').getImageData(0, 0, $('plot').width, $('plot').height).data.some(v => v > 0)"
    )
    assert complaints(page) == []


def test_the_slider_mixes_picture_and_colours(still: tuple[Live, Camera, Page]) -> None:
    live, _, page = still
    passes = len(live.passes)
    slide(page, 0)
    bare = pixel(page, 90, 2)
    assert np.abs(bare.astype(int) - picture(0)[2, 90]).max() < 12
    slide(page, 100)
    full = pixel(page, 90, 2)
    palette = [tuple(kind["colour"]) for kind in page.evaluate("about.classes")]
    assert tuple(full) in palette
    slide(page, 50)
    mixed = pixel(page, 90, 2)
    assert np.abs(mixed - (bare.astype(int) + full) / 2).max() < 3
    assert page.evaluate("$('percent').value") == "50 %"
    assert len(live.passes) == passes  # nothing of this is the server's work
    assert complaints(page) == []


def test_a_class_can_be_hidden_and_shown_again(still: tuple[Live, Camera, Page]) -> None:
    _, _, page = still
    slide(page, 100)
    full = pixel(page, 90, 2)
    palette = [tuple(kind["colour"]) for kind in page.evaluate("about.classes")]
    label = palette.index(tuple(full))
    press = f"(async () => {{ $('classes').children[{label}].firstChild.click(); while (drawing) await drawing; }})()"
    page.evaluate(press)
    assert np.abs(pixel(page, 90, 2).astype(int) - picture(0)[2, 90]).max() < 12
    assert page.evaluate(f"$('classes').children[{label}].firstChild.getAttribute('aria-pressed')") == "false"
    page.evaluate(press)
    assert tuple(pixel(page, 90, 2)) == tuple(full)


def test_the_classes_have_their_share_of_the_picture(still: tuple[Live, Camera, Page]) -> None:
    _, _, page = still
    shares = page.evaluate("shown.header.shares")
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    texts = page.evaluate("[...document.querySelectorAll('#classes .share')].map(share => share.textContent)")
    for share, text in zip(shares, texts, strict=True):
        assert text == ("0 %" if share == 0 else f"{100 * share:.1f} %")
    names = page.evaluate("[...document.querySelectorAll('#classes .name')].map(name => name.textContent)")
    assert names == ["sky", "road", "tree", "car"]


@pytest.mark.slow
def test_a_second_viewer_sees_the_same_and_has_a_slider_of_its_own(still: tuple[Live, Camera, Page], browser: Browser) -> None:
    live, camera, page = still
    second = browser.open(live.address)
    second.wait_for("about !== null && figures !== null && figures.viewers === 2")
    passes = len(live.passes)
    live.shoot(camera)
    for viewer in (page, second):
        viewer.wait_for("shown !== null && shown.header.frame === 1 && !drawing")
    assert len(live.passes) == passes + 1
    slide(second, 0)
    slide(page, 100)
    assert np.abs(pixel(second, 90, 2).astype(int) - picture(1)[2, 90]).max() < 12
    assert np.abs(pixel(page, 90, 2).astype(int) - pixel(second, 90, 2)).max() > 30


def test_the_page_comes_back_with_the_server(serve: Serve, browser: Browser) -> None:
    live = serve(Camera().source())
    page = browser.open(live.address)
    page.wait_for("shown !== null")
    live.server.close()
    live.session.close()
    page.wait_for("$('state').textContent === 'no connection'")
    assert "trying again" in page.evaluate("$('message').textContent")
    again = serve(Camera().source(), port=live.port)
    frame = page.evaluate("shown.header.frame")
    page.wait_for("$('state').textContent === 'live'")
    page.wait_for(f"shown.header.frame !== {frame} && $('message').hidden")
    assert again.passes


@pytest.mark.slow
def test_a_page_whose_token_is_of_before_says_what_to_do(serve: Serve, browser: Browser) -> None:
    live = serve(Camera().source(), Gate("one"))
    page = browser.open(live.address)
    page.wait_for("shown !== null")
    live.server.close()
    live.session.close()
    serve(Camera().source(), Gate("two"), port=live.port)
    page.wait_for("$('message').textContent.includes('earlier start')")


@pytest.mark.slow
def test_the_end_of_the_source_is_told_over_its_last_picture(serve: Serve, browser: Browser) -> None:
    page = browser.open(serve(Camera(frames=3).source()).address)
    page.wait_for("figures !== null && figures.ended !== null && shown !== null")
    assert page.wait_for("!$('message').hidden && $('message').textContent") == "the video has ended"
    assert page.evaluate("shown.header.frame") == 2
    assert page.evaluate("$('state').textContent") == "ended"


@pytest.mark.quick_cases(2)
@pytest.mark.parametrize("width", [320, 390, 820, 1440])
def test_nothing_is_wider_than_the_window(still: tuple[Live, Camera, Page], width: int) -> None:
    _, _, page = still
    page.resize(width, 800, mobile=width < 900)
    page.wait_for(f"innerWidth === {width} && figures !== null")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sections = "[...document.querySelectorAll('section, canvas, button')]"
    assert page.evaluate(f"{sections}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length") == 0
