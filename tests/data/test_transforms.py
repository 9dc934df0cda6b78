"""Transforms: labels move with the pixels, nothing is lost when nothing is asked for."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enet_tvm.data.transforms import (
    MEAN,
    STD,
    Augmentation,
    ColourChange,
    colour_and_normalise,
    crop_pair,
    draw_colours,
    draw_crop,
    normalise,
    recolour,
)

VOID = 11
STRONG = Augmentation(scale=(0.4, 2.5), aspect=0.3, flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=20.0, blur=0.5)


def coded(height, width, seed=0):
    """Return a picture of large blocks whose colour says their label, and the labels."""
    blocks = np.random.default_rng(seed).integers(0, 11, (height // 16 + 1, width // 16 + 1), np.uint8)
    labels = torch.from_numpy(blocks.repeat(16, 0).repeat(16, 1)[:height, :width].copy())
    return (labels * 20)[None].repeat(3, 1, 1), labels


@settings(max_examples=60, deadline=None)
@given(
    st.integers(17, 90), st.integers(17, 90), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), st.floats(0.3, 3)
)
def test_labels_move_with_the_pixels(height, width, crop_height, crop_width, seed, zoom):
    picture, labels = coded(height, width)
    size = (8 * crop_height, 8 * crop_width)
    strong = dataclasses.replace(STRONG, scale=(zoom, zoom * 1.2))
    out, moved = crop_pair(picture, labels, size, strong, np.random.default_rng(seed), VOID)
    assert out.shape == (3, *size)
    assert out.dtype == moved.dtype == torch.uint8
    inside = moved != VOID
    # Resizing blurs across the blocks' borders, so compare where the label is the same all around.
    padded = torch.nn.functional.pad(moved[None, None].float(), (3, 3, 3, 3), value=-1)
    largest = torch.nn.functional.max_pool2d(padded, 7, stride=1)[0, 0]
    smallest = -torch.nn.functional.max_pool2d(-padded, 7, stride=1)[0, 0]
    sure = inside & (largest == smallest)
    assert ((out[0].int() - moved.int() * 20).abs()[sure] <= 1).all()
    fill = torch.tensor([round(255 * value) for value in MEAN], dtype=torch.uint8)
    assert (out[:, ~inside] == fill[:, None]).all()


def test_no_augmentation_at_the_own_size_changes_nothing():
    picture, labels = coded(40, 48)
    out, moved = crop_pair(picture, labels, (40, 48), Augmentation(), np.random.default_rng(0), VOID)
    assert torch.equal(out, picture)
    assert torch.equal(moved, labels)


def test_a_flip_mirrors_both():
    picture, labels = coded(40, 48)
    out, moved = crop_pair(picture, labels, (40, 48), Augmentation(flip=1.0), np.random.default_rng(0), VOID)
    assert torch.equal(out, picture.flip(2))
    assert torch.equal(moved, labels.flip(1))


def test_equal_seeds_give_equal_windows_and_others_do_not():
    picture, labels = coded(64, 64)
    draws = [crop_pair(picture, labels, (32, 32), STRONG, np.random.default_rng(seed), VOID)[0] for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_plain_colours_are_the_normalisation_that_evaluation_uses():
    pictures = torch.randint(0, 256, (2, 3, 8, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = colour_and_normalise(pictures, Augmentation(), np.random.default_rng(0))
    theirs = np.concatenate([normalise(picture.permute(1, 2, 0).numpy()) for picture in pictures])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-6)
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_normalise_by_hand():
    picture = np.zeros((1, 2, 3), np.uint8)
    picture[0, 1] = (255, 51, 0)
    x = normalise(picture, (0.5, 0.2, 0.1), (0.5, 0.25, 0.2))
    assert x.shape == (1, 3, 1, 2)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 0, 1], [1.0, 0.0, -0.5], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_colours_stay_in_range_and_grey_stays_grey(seed):
    pictures = torch.full((4, 3, 8, 8), 100, dtype=torch.uint8)
    varied = colour_and_normalise(pictures, STRONG, np.random.default_rng(seed))
    scaled = varied * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert scaled.min() >= -1e-6
    assert scaled.max() <= 1 + 1e-6
    assert (scaled.amax(1) - scaled.amin(1)).max() < 1e-5


def unnormalised(values):
    return values * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]


def test_light_changes_as_a_camera_sees_it():
    pictures = torch.full((1, 3, 4, 4), 51, dtype=torch.uint8)
    change = ColourChange(1.0, 1.0, 1.0, 0.0, False, gains=(2.0, 1.0, 0.5), gamma=2.0)
    values = unnormalised(recolour(pictures, [change]))
    np.testing.assert_allclose(values[0, :, 0, 0].numpy(), [0.4**2, 0.2**2, 0.1**2], atol=1e-6)


def test_what_is_overexposed_is_clipped_before_gamma():
    change = ColourChange(1.0, 1.0, 1.0, 0.0, False, gains=(8.0, 8.0, 8.0), gamma=0.5)
    values = unnormalised(recolour(torch.full((1, 3, 4, 4), 100, dtype=torch.uint8), [change]))
    np.testing.assert_allclose(values.numpy(), 1.0, atol=1e-6)


def test_noise_is_of_the_drawn_strength_and_depends_on_its_seed_alone():
    pictures = torch.full((3, 3, 64, 64), 128, dtype=torch.uint8)
    still = ColourChange(1.0, 1.0, 1.0, 0.0, False)
    noisy = [dataclasses.replace(still, noise=0.1, noise_seed=seed) for seed in (5, 6)]
    first = unnormalised(recolour(pictures, [still, *noisy]))
    assert first[0].std() < 1e-6
    assert first[1].std() == pytest.approx(0.1, rel=0.05)
    assert not torch.equal(first[1], first[2])
    alone = unnormalised(recolour(pictures[:1], noisy[1:]))
    assert torch.equal(alone[0], first[2])


def test_light_is_drawn_within_its_bounds_and_leaves_the_other_chance_alone():
    wide = dataclasses.replace(STRONG, exposure=(-2.0, 1.0), white_balance=0.5, gamma=1.0, noise=0.05)
    drawn = draw_colours(500, wide, np.random.default_rng(0))
    plain = draw_colours(500, STRONG, np.random.default_rng(0))
    assert [change.hue for change in drawn] == [change.hue for change in plain]
    assert all(change.gains == (1.0, 1.0, 1.0) and change.gamma == 1 and change.noise == 0 for change in plain)
    stops = np.log2([change.gains for change in drawn])
    assert -2 <= stops[:, 1].min() < -1.9
    assert 0.9 < stops[:, 1].max() <= 1
    assert np.abs(stops[:, [0, 2]] - stops[:, 1:2]).max() <= 0.5
    gammas, noises = ([getattr(change, name) for change in drawn] for name in ("gamma", "noise"))
    assert 0.5 <= min(gammas) < 0.55
    assert 1.9 < max(gammas) <= 2
    assert min(noises) >= 0
    assert 0.045 < max(noises) <= 0.05


@given(st.integers(1, 90), st.floats(0.3, 3), st.integers(0, 2**32), st.data())
def test_a_wanted_pixel_is_in_the_window(length, zoom, seed, data):
    inside = data.draw(st.integers(0, length - 1))
    zoomed = Augmentation(scale=(zoom, zoom))
    crop = draw_crop((length, length), (24, 32), zoomed, np.random.default_rng(seed), (inside, inside))
    for window in (crop.rows, crop.columns):
        assert window.source_start <= inside < window.source_stop


def test_saturation_zero_is_the_luma():
    red = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    red[:, 0] = 255

    class Least:
        def uniform(self, low, high):
            return low

        def random(self, count):
            return np.ones(count)

    grey = colour_and_normalise(red, Augmentation(saturation=1.0), Least())
    scaled = grey * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    np.testing.assert_allclose(scaled.numpy(), 0.299, atol=1e-5)
