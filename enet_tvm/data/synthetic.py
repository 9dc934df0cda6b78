"""A drawn street with labels: pictures of known truth for the demo, the tests and a first training, without a download.

A scene is laid out in metres, projected through a pinhole camera and painted from far to near, once in colour and once
in labels. It has the eleven classes of CamVid in CamVid's order; bins and other clutter are unlabelled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from enet_tvm.errors import UserError
from enet_tvm.size import Size

Sample = tuple[Image.Image, NDArray[np.uint8]]
_Point = tuple[float, float]
_Colour = tuple[float, float, float]


class Street(IntEnum):
    """The labels of a drawn street: CamVid's classes in CamVid's order."""

    SKY = 0
    BUILDING = 1
    POLE = 2
    ROAD = 3
    PAVEMENT = 4
    TREE = 5
    SIGN = 6
    FENCE = 7
    CAR = 8
    PEDESTRIAN = 9
    BICYCLIST = 10
    UNLABELLED = 11


class SyntheticStreet(Sequence[Sample]):
    """Drawn street scenes.

    Parameters
    ----------
    size : Size
        Width and height of the pictures, in pixels; any positive size.
    count : int
        Number of pictures.
    seed : int
        Another seed gives other scenes. A scene depends on (seed, index) only, its pixels also on the size.

    Notes
    -----
    An item is (RGB picture, H x W uint8 labels). Labels are those of `Street`.
    """

    def __init__(self, size: Size, count: int, seed: int = 0) -> None:
        if min(size) < 1 or count < 0 or seed < 0:
            raise UserError(
                f"no street can be drawn with size {size[0]}x{size[1]}, count {count} and seed {seed}; "
                "give a positive size and no negative number"
            )
        self.size = Size(*size)
        self._count = count
        self.seed = seed

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"street {index} of {self._count}")
        return _Scene(self.size, np.random.default_rng([self.seed, index % self._count])).render()


class _Scene:
    """One street: its camera, its light, and the painters of what stands in it."""

    def __init__(self, size: Size, rng: np.random.Generator) -> None:
        self.size = size
        self.rng = rng
        self.image = Image.new("RGB", size)
        self.labels = Image.new("L", size, int(Street.SKY))
        self.paint = ImageDraw.Draw(self.image)
        self.mark = ImageDraw.Draw(self.labels)

        self.road = rng.uniform(3.0, 5.5)  # half width, metres
        self.walk = rng.uniform(1.8, 4.0)
        self.bend = rng.normal(0, 4e-4)
        self.camera_x = rng.uniform(-0.1, 0.6) * self.road
        self.camera_y = rng.uniform(1.3, 1.9)
        self.focal = rng.uniform(0.75, 1.0) * max(size.width, size.height * 4 / 3)
        self.centre = rng.uniform(0.42, 0.58) * size.width
        self.horizon = rng.uniform(0.4, 0.52) * size.height

        self.sun = rng.choice([-1.0, 1.0])  # the side it shines on
        self.contrast = rng.uniform(0.05, 0.45)  # overcast to bright
        self.haze_distance = rng.uniform(60, 260)
        blue = rng.uniform(0, 1)
        self.sky_top = _mix((205, 208, 212), (86, 136, 205), blue)
        self.haze = _mix((222, 222, 220), (186, 208, 232), blue)

    # -- camera and brushes

    def project(self, x: float, y: float, z: float) -> _Point:
        """Return the pixel of a point `x` to the right of the road's middle, `y` up and `z` ahead, in metres."""
        scale = self.focal / z
        return self.centre + scale * (x - self.camera_x + self.bend * z * z), self.horizon + scale * (self.camera_y - y)

    def ink(self, colour: _Colour, z: float = 0.0, light: float = 1.0) -> tuple[int, int, int]:
        """Return a colour lit and seen through the haze of `z` metres."""
        clear = math.exp(-z / self.haze_distance)
        gain, fog = light * clear, 1 - clear
        (r, g, b), (x, y, z) = colour, self.haze
        return min(255, int(r * gain + x * fog)), min(255, int(g * gain + y * fog)), min(255, int(b * gain + z * fog))

    def polygon(self, points: Sequence[_Point], ink: tuple[int, int, int], label: int | None = None) -> None:
        """Fill a polygon; without a label it is a detail of what lies under it."""
        self.paint.polygon(points, fill=ink)
        if label is not None:
            self.mark.polygon(points, fill=int(label))

    def ellipse(self, centre: _Point, rx: float, ry: float, ink: tuple[int, int, int], label: int | None = None) -> None:
        box = (centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry)
        self.paint.ellipse(box, fill=ink)
        if label is not None:
            self.mark.ellipse(box, fill=int(label))

    def line(self, points: Sequence[_Point], width: float, ink: tuple[int, int, int], label: int | None = None) -> None:
        pixels = max(1, round(width))
        self.paint.line(points, fill=ink, width=pixels)
        if label is not None:
            self.mark.line(points, fill=int(label), width=pixels)

    def ground(self, left: float, right: float, near: float, far: float, y: float = 0.0) -> list[_Point]:
        """Return the outline of a strip of ground, following the bend."""
        steps = np.geomspace(near, far, 12 if far > 4 * near else 2)
        return [self.project(left, y, z) for z in steps] + [self.project(right, y, z) for z in steps[::-1]]

    def upright(self, x: float, z: float, left: float, right: float, bottom: float, top: float) -> list[_Point]:
        """Return a rectangle that faces the camera, in metres about (`x`, `z`)."""
        return [self.project(x + a, b, z) for a, b in ((left, bottom), (right, bottom), (right, top), (left, top))]

    def wall(self, x: float, near: float, far: float, bottom: float, top: float) -> list[_Point]:
        """Return a rectangle that runs along the street."""
        return [self.project(x, y, z) for y, z in ((bottom, near), (bottom, far), (top, far), (top, near))]

    def shade(self, x: float) -> float:
        """Return how brightly a wall is lit that faces the road from the side of `x`."""
        return 1 + self.contrast * (0.5 if x * self.sun > 0 else -0.7)

    # -- the picture

    def render(self) -> Sample:
        self.draw_sky()
        self.draw_ground()
        objects = self.place_buildings() + self.place_furniture() + self.place_traffic() + self.place_people()
        for _, draw in sorted(objects, key=lambda item: -item[0]):
            draw()
        labels = np.array(self.labels)
        return self.expose(labels), labels

    def draw_sky(self) -> None:
        width, height = self.size
        rows = np.clip(np.arange(height)[:, None] / max(1.0, self.horizon), 0, 1)
        sky = np.asarray(self.sky_top) * (1 - rows) + np.asarray(self.haze) * rows
        gradient = Image.fromarray(np.repeat(sky[:, None].astype(np.uint8), 1, axis=1)).resize(self.size)
        clouds = Image.fromarray(self.rng.integers(0, 256, (7, 9), dtype=np.uint8)).resize(self.size, Image.Resampling.BICUBIC)
        cover = self.rng.uniform(0.2, 1.0)
        self.image.paste(gradient)
        self.image.paste((236, 237, 240), (0, 0, width, height), clouds.point(lambda v: max(0, (v - 110)) * cover))

    def draw_ground(self) -> None:
        rng, road, walk = self.rng, self.road, self.walk
        near, far = 0.8, 220.0
        paving = _vary(rng, (150, 145, 138), 22)
        asphalt = _vary(rng, (98, 98, 102), 20, grey=True)
        paint = _vary(rng, (214, 214, 206), 20, grey=True)
        self.polygon(self.ground(-80, 80, near, far), self.ink(paving), Street.PAVEMENT)
        self.polygon(self.ground(-road, road, near, far), self.ink(asphalt), Street.ROAD)
        for z in np.geomspace(3, 60, 26):  # joints between slabs
            for side in (-1, 1):
                joint = [self.project(side * road, 0, z), self.project(side * (road + walk + 6), 0, z)]
                self.line(joint, 0.02 * self.focal / z, self.ink(paving, z, 0.88))
        for side in (-1, 1):
            self.polygon(self.ground(side * road, side * (road + 0.18), near, far), self.ink(paving, 0, 1.18), Street.PAVEMENT)
            self.polygon(self.ground(side * (road - 0.3), side * road, near, far), self.ink(asphalt, 0, 0.85))
        for _ in range(rng.integers(2, 7)):  # repairs
            x, z, length = rng.uniform(-road, road - 1), rng.uniform(4, 40), rng.uniform(1, 6)
            self.polygon(
                self.ground(x, min(road, x + rng.uniform(0.5, 2)), z, z + length), self.ink(asphalt, z, rng.uniform(0.8, 1.15))
            )
        dash, gap = ((2.0, 3.0), (3.0, 5.0), (200.0, 1.0))[rng.integers(3)]
        start = rng.uniform(1, 5)
        while start < 90:
            self.polygon(self.ground(-0.08, 0.08, start, min(start + dash, far)), self.ink(paint, start))
            start += dash + gap
        if rng.random() < 0.5:
            for side in (-1, 1):
                self.polygon(self.ground(side * (road - 0.55), side * (road - 0.42), near, 120), self.ink(paint, 10, 0.95))
        if rng.random() < 0.35:  # zebra crossing
            z, x = rng.uniform(9, 25), -road + 0.3
            while x < road - 0.5:
                self.polygon(self.ground(x, x + 0.5, z, z + 3), self.ink(paint, z))
                x += 1.0
        self.draw_shadows()

    def draw_shadows(self) -> None:
        """Darken the side that the sun does not reach, with the jagged edge of a row of houses."""
        mask = Image.new("L", self.size, 0)
        draw = ImageDraw.Draw(mask)
        z, reach = 0.8, self.rng.uniform(0.2, 1.6) * self.road
        while z < 200:
            length = self.rng.uniform(5, 18)
            edge = -self.sun * (self.road - reach * self.rng.uniform(0.6, 1.3))
            strip = self.ground(-self.sun * 60, edge, z, z + length)
            draw.polygon(strip, fill=int(255 * min(1.0, 1.6 * self.contrast)))
            z += length
        self.image.paste(self.image.point(lambda v: v * 0.6), mask=mask)

    def expose(self, labels: NDArray[np.uint8]) -> Image.Image:
        """Return the picture a camera would take: texture, colour cast, exposure, vignette, blur and noise."""
        rng, (width, height) = self.rng, self.size
        texture = np.zeros((height, width), np.float32)
        for cells, weight in ((90, 0.6), (24, 0.5)):
            grid = rng.integers(0, 256, (max(1, cells * height // max(width, 1)) + 1, cells), dtype=np.uint8)
            texture += weight * (
                np.asarray(Image.fromarray(grid).resize(self.size, Image.Resampling.BILINEAR), np.float32) - 128
            )
        roughness = np.array([0.02, 0.11, 0.08, 0.11, 0.13, 0.34, 0.05, 0.16, 0.05, 0.14, 0.12, 0.14], np.float32)
        pixels = np.asarray(self.image.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.7) * width / 640)), np.float32)
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        vignette = 1 - rng.uniform(0, 0.25) * ((x * x + y * y) / 2).astype(np.float32)
        gain = rng.uniform(0.75, 1.25) * (1 + rng.normal(0, 0.04, 3))
        pixels = pixels * (vignette[..., None] * gain.astype(np.float32))
        pixels *= (1 + texture * roughness[labels] / 128)[..., None]
        pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(rng.uniform(2, 8))
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    # -- what stands in it: each place_* returns (distance, painter) pairs

    def place_buildings(self) -> list[tuple[float, Callable[[], None]]]:
        rng = self.rng
        objects: list[tuple[float, Callable[[], None]]] = [(400.0, self.draw_backdrop)]
        for side in (-1, 1):
            z = rng.uniform(-6, 2)
            while z < 110:
                length = rng.uniform(6, 18)
                x = side * (self.road + self.walk + rng.choice([0.0, 0.0, rng.uniform(0.5, 4)]))
                if z + length < 3:
                    pass  # behind the camera
                elif rng.random() < 0.25:
                    objects += self.place_garden(side, max(z, 2.0), z + length)
                else:
                    objects.append((z + length, self.building(x, max(z, 2.0), z + length)))
                z += length
        return objects

    def draw_backdrop(self) -> None:
        """Close the view at the end of the street with far houses and trees."""
        rng, x = self.rng, -140.0
        while x < 140:
            width, height = rng.uniform(8, 30), rng.uniform(4, 16)
            block = self.upright(x - self.bend * 130**2, 130, 0, width, -1, height)
            green = rng.random() < 0.4
            ink = self.ink((70, 100, 60) if green else _vary(rng, (150, 130, 120), 30), 110)
            self.polygon(block, ink, Street.TREE if green else Street.BUILDING)
            x += width * rng.uniform(0.5, 1.2)

    def building(self, x: float, near: float, far: float) -> Callable[[], None]:
        rng, side = self.rng, math.copysign(1, x)
        colour = _vary(rng, _WALLS[rng.integers(len(_WALLS))], 18)
        storeys = int(rng.integers(2, 7))
        storey, pane = rng.uniform(2.8, 3.6), rng.uniform(1.8, 3.4)
        height = storeys * storey + rng.uniform(0.3, 1.5)
        roof = rng.uniform(1, 3) if rng.random() < 0.4 else 0.0
        glass, frame = _vary(rng, (70, 84, 98), 25), _vary(rng, (225, 222, 215), 20)
        lit = rng.random((storeys, 24)) < 0.2
        shop = rng.random() < 0.4
        sill, lintel, fill = rng.uniform(0.25, 0.4), rng.uniform(0.75, 0.9), rng.uniform(0.4, 0.75)

        def draw() -> None:
            end = self.wall(x, near, far, 0, height)
            gable = [(a, b) for a, b in self.upright(x, near, 0, side * 14, 0, height)]
            self.polygon(gable, self.ink(colour, near, 0.95 - 0.3 * self.contrast), Street.BUILDING)
            if roof:
                slope = [*(self.project(x, height, z) for z in (near, far))]
                slope += [*(self.project(x + side * 4, height + roof, z) for z in (far, near))]
                self.polygon(slope, self.ink((112, 72, 60), near, self.shade(x)), Street.BUILDING)
                front = [self.project(x + side * a, b, near) for a, b in ((0, height), (4, height + roof), (14, height))]
                self.polygon(front, self.ink(colour, near, 0.95 - 0.3 * self.contrast), Street.BUILDING)
            self.polygon(end, self.ink(colour, (near + far) / 2, self.shade(x)), Street.BUILDING)
            self.polygon(self.wall(x, near, far, height - 0.35, height), self.ink(frame, far, self.shade(x) * 0.9))
            columns = max(1, min(24, int((far - near) / pane)))
            for row in range(storeys):
                base = row * storey
                for column in range(columns):
                    z = near + (column + 0.5) * (far - near) / columns
                    if self.focal * pane / z < 2:
                        break
                    half = fill * pane / 2
                    low, high = base + sill * storey, base + lintel * storey
                    if row == 0 and (shop or column % 4 == 1):
                        low, half = base + 0.1, half * (1.3 if shop else 0.8)
                    tone = (214, 190, 130) if lit[row, column] else glass
                    self.polygon(
                        self.wall(x, max(2.0, z - half - 0.1), z + half + 0.1, low - 0.1, high + 0.1),
                        self.ink(frame, z, self.shade(x)),
                    )
                    self.polygon(self.wall(x, max(2.0, z - half), z + half, low, high), self.ink(tone, z, self.shade(x)))
            if shop:
                self.polygon(self.wall(x, near, far, storey * 0.9, storey * 1.05), self.ink(_hue(int(lit.sum())), near, 0.8))

        return draw

    def place_garden(self, side: int, near: float, far: float) -> list[tuple[float, Callable[[], None]]]:
        """Fill a gap between houses: a fence along the pavement with trees and a hedge behind it."""
        rng = self.rng
        x = side * (self.road + self.walk)
        objects = [(far + 0.5, self.hedge(x + side * 3, near, far))]
        for _ in range(rng.integers(1, 4)):
            z = rng.uniform(near, far)
            objects.append((z, self.tree(x + side * rng.uniform(2, 8), z)))
        if rng.random() < 0.85:
            objects.append((near, self.fence(x, near, far)))
        return objects

    def hedge(self, x: float, near: float, far: float) -> Callable[[], None]:
        colour, height = _vary(self.rng, (70, 98, 52), 15), self.rng.uniform(1.5, 4)

        def draw() -> None:
            self.polygon(self.upright(x, far, 0, math.copysign(30, x), 0, height), self.ink(colour, far, 0.8), Street.TREE)
            self.polygon(self.wall(x, near, far, 0, height), self.ink(colour, near, self.shade(x)), Street.TREE)

        return draw

    def fence(self, x: float, near: float, far: float) -> Callable[[], None]:
        rng = self.rng
        height, boards = rng.uniform(0.9, 1.9), rng.random() < 0.5
        colour = _vary(rng, (128, 100, 72) if boards else (60, 66, 64), 22)

        def draw() -> None:
            outline = self.wall(x, near, far, 0, height)
            if boards:
                self.polygon(outline, self.ink(colour, near, self.shade(x)), Street.FENCE)
            else:
                self.mark.polygon(outline, fill=int(Street.FENCE))
                for y in (0.15, height - 0.05):
                    rail = [self.project(x, y, near), self.project(x, y, far)]
                    self.line(rail, 0.07 * self.focal / far, self.ink(colour, near))
            z = near
            while z < far:
                post = [self.project(x, 0, z), self.project(x, height, z)]
                self.line(post, 0.05 * self.focal / z, self.ink(colour, z, self.shade(x) * (0.75 if boards else 1.0)))
                z += max(0.3, 0.012 * z)

        return draw

    def place_furniture(self) -> list[tuple[float, Callable[[], None]]]:
        """Lamp posts, signs, traffic lights, street trees, railings and bins along both kerbs."""
        rng = self.rng
        objects: list[tuple[float, Callable[[], None]]] = []
        for side in (-1, 1):
            kerb = side * (self.road + 0.5)
            spacing, z = rng.uniform(14, 28), rng.uniform(5, 14)
            while z < 100:
                objects.append((z, self.lamp(kerb, z)))
                z += spacing
            for _ in range(rng.integers(1, 4)):
                z = rng.uniform(6, 45)
                objects.append((z, self.sign(kerb + side * rng.uniform(0, 0.6), z)))
            if rng.random() < 0.5:
                spacing, z = rng.uniform(7, 16), rng.uniform(6, 16)
                while z < 80:
                    objects.append((z, self.tree(kerb + side * 0.5, z)))
                    z += spacing * rng.uniform(0.8, 1.4)
            if rng.random() < 0.3:
                z = rng.uniform(6, 25)
                objects.append((z, self.fence(kerb, z, z + rng.uniform(5, 15))))
            for _ in range(rng.integers(0, 3)):
                z = rng.uniform(6, 40)
                objects.append((z, self.bin(side * (self.road + rng.uniform(0.8, self.walk)), z)))
        return objects

    def lamp(self, x: float, z: float) -> Callable[[], None]:
        height, reach = self.rng.uniform(4.5, 8), -math.copysign(self.rng.uniform(0.6, 2.0), x)
        colour = _vary(self.rng, (88, 92, 92), 30, grey=True)

        def draw() -> None:
            ink, scale = self.ink(colour, z), self.focal / z
            top, tip = self.project(x, height, z), self.project(x + reach, height + 0.3, z)
            self.line([self.project(x, 0, z), top], 0.17 * scale, ink, Street.POLE)
            self.line([top, tip], 0.1 * scale, ink, Street.POLE)
            self.ellipse(tip, 0.35 * scale, 0.12 * scale, self.ink((230, 228, 210), z), Street.POLE)

        return draw

    def sign(self, x: float, z: float) -> Callable[[], None]:
        rng = self.rng
        kind, height, turn = int(rng.integers(4)), rng.uniform(2.3, 3.2), rng.uniform(0.7, 1.0)
        rim, face = _SIGNS[rng.integers(len(_SIGNS))]
        phase = int(rng.integers(3))

        def draw() -> None:
            scale = self.focal / z
            self.line(
                [self.project(x, 0, z), self.project(x, height, z)], 0.1 * scale, self.ink((130, 132, 130), z), Street.POLE
            )
            centre = self.project(x, height, z)
            if kind == 0:
                self.ellipse(centre, 0.4 * scale * turn, 0.4 * scale, self.ink(rim, z), Street.SIGN)
                self.ellipse(centre, 0.29 * scale * turn, 0.29 * scale, self.ink(face, z))
            elif kind == 1:
                for r, colour, label in ((0.5, rim, Street.SIGN), (0.32, face, None)):
                    corners = [self.project(x + r * a * turn, height + r * b, z) for a, b in ((-1, -0.7), (1, -0.7), (0, 1))]
                    self.polygon(corners, self.ink(colour, z), label)
            elif kind == 2:
                self.polygon(
                    self.upright(x, z, -0.55 * turn, 0.55 * turn, height - 0.4, height + 0.5), self.ink(rim, z), Street.SIGN
                )
                self.polygon(self.upright(x, z, -0.4 * turn, 0.4 * turn, height - 0.1, height + 0.2), self.ink(face, z))
            else:
                self.polygon(self.upright(x, z, -0.2, 0.2, height - 0.2, height + 0.75), self.ink((32, 34, 34), z), Street.SIGN)
                for i, lamp in enumerate(((235, 50, 40), (240, 180, 50), (60, 220, 120))):
                    glow = 1.0 if i == phase else 0.25
                    self.ellipse(self.project(x, height + 0.57 - 0.3 * i, z), 0.1 * scale, 0.1 * scale, self.ink(lamp, z, glow))

        return draw

    def tree(self, x: float, z: float) -> Callable[[], None]:
        rng = self.rng
        height, spread = rng.uniform(3.5, 9), rng.uniform(1.1, 2.6)
        colour = _vary(rng, _LEAVES[rng.integers(len(_LEAVES))], 18)
        around = rng.normal(0, 0.5, (36, 2)).clip(-1, 1)
        radius, tone = rng.uniform(0.2, 0.5, 36), rng.uniform(0.75, 1.2, 36)

        def draw() -> None:
            scale = self.focal / z
            trunk = [self.project(x, 0, z), self.project(x, height * 0.6, z)]
            self.line(trunk, 0.28 * scale, self.ink((84, 70, 58), z), Street.TREE)
            for (a, b), r, t in zip(around, radius, tone, strict=True):
                light = t * (1 + self.contrast * (0.5 * b - 0.4 * a * self.sun))
                leaf = self.project(x + spread * a, height * (0.7 + 0.28 * b), z)
                self.ellipse(leaf, r * spread * scale, r * spread * 0.8 * scale, self.ink(colour, z, light), Street.TREE)

        return draw

    def bin(self, x: float, z: float) -> Callable[[], None]:
        colour, height = _vary(self.rng, (52, 76, 66), 35), self.rng.uniform(0.7, 1.2)

        def draw() -> None:
            self.polygon(self.upright(x, z, -0.3, 0.3, 0, height), self.ink(colour, z, 0.9), Street.UNLABELLED)
            self.polygon(self.upright(x, z, -0.34, 0.34, height - 0.12, height), self.ink(colour, z, 0.6), Street.UNLABELLED)

        return draw

    def place_traffic(self) -> list[tuple[float, Callable[[], None]]]:
        rng, road = self.rng, self.road
        objects: list[tuple[float, Callable[[], None]]] = []
        for lane, away in ((0.5, True), (-0.5, False)):
            z = rng.uniform(8, 30)
            while z < 90 and rng.random() < 0.8:
                objects.append((z, self.car(lane * road + rng.normal(0, 0.15), z, away)))
                z += rng.uniform(8, 30)
        if road > 4:
            for side in (-1, 1):
                z = rng.uniform(6, 20)
                while z < 70 and rng.random() < 0.75:
                    objects.append((z, self.car(side * (road - 1.0), z, side > 0)))
                    z += rng.uniform(5.2, 9)
        return objects

    def car(self, x: float, z: float, away: bool) -> Callable[[], None]:
        """Return the painter of a car whose near end is `z` metres ahead."""
        rng = self.rng
        colour = _vary(rng, _CARS[rng.integers(len(_CARS))], 15)
        van = rng.random() < 0.15
        half, length = rng.uniform(0.82, 0.95), rng.uniform(3.8, 4.8) + van
        waist, top = (1.1, rng.uniform(1.9, 2.5)) if van else (0.88, rng.uniform(1.38, 1.65))
        rear = 0.1 if van else rng.uniform(0.3, 0.9)
        bonnet = 0.8 if van else 1.2

        def draw() -> None:
            scale = self.focal / z
            seen = -math.copysign(half, x - self.camera_x + self.bend * z * z)  # the flank that faces the camera
            flank = self.shade(seen) * 0.85
            glass = (44, 52, 60)
            cabin = (rear, length - bonnet) if away else (bonnet, length - rear)
            shadow = [self.project(x + a, 0, z + b) for a, b in ((-1, -0.2), (1, -0.2), (1, length), (-1, length))]
            self.polygon(shadow, self.ink((40, 40, 42), z))
            body = [(x + seen, y, z + b) for y, b in ((0.25, 0), (0.25, length), (waist, length), (waist, 0))]
            self.polygon([self.project(*p) for p in body], self.ink(colour, z, flank), Street.CAR)
            for b in (0.75, length - 0.85):
                wheel = self.project(x + seen, 0.32, z + b)
                depth = abs(self.project(x + seen, 0, z + b - 0.32)[0] - self.project(x + seen, 0, z + b + 0.32)[0]) / 2
                self.ellipse(wheel, depth, 0.32 * self.focal / (z + b), self.ink((26, 26, 28), z), Street.CAR)
            inset = 0.82
            side = [
                (seen, waist, cabin[0] - 0.35),
                (seen, waist, cabin[1] + 0.5),
                (seen * inset, top, cabin[1]),
                (seen * inset, top, cabin[0]),
            ]
            self.polygon(
                [self.project(x + a, y, z + max(0, b)) for a, y, b in side], self.ink(colour, z, flank * 0.95), Street.CAR
            )
            pane = [(seen, waist + 0.05, cabin[0]), (seen, waist + 0.05, cabin[1]), (seen * inset, top - 0.12, cabin[1] - 0.3)]
            pane.append((seen * inset, top - 0.12, cabin[0] + 0.2))
            self.polygon([self.project(x + a, y, z + max(0, b)) for a, y, b in pane], self.ink(glass, z, 1.2))
            start = max(0.0, cabin[0] - 0.35)
            lid = [(-half, waist, 0), (half, waist, 0), (half, waist, start), (-half, waist, start)]
            self.polygon([self.project(x + a, y, z + b) for a, y, b in lid], self.ink(colour, z, 1.15), Street.CAR)
            screen = [
                (-half, waist, start),
                (half, waist, start),
                (half * inset, top, cabin[0]),
                (-half * inset, top, cabin[0]),
            ]
            self.polygon([self.project(x + a, y, z + b) for a, y, b in screen], self.ink(colour, z), Street.CAR)
            screen = [(a * 0.86, waist + 0.06 if y == waist else y - 0.1, b) for a, y, b in screen]
            self.polygon([self.project(x + a, y, z + b) for a, y, b in screen], self.ink(glass, z))
            for a in (-half + 0.12, half - 0.12):
                self.polygon(self.upright(x + a, z, -0.12, 0.12, 0, 0.4), self.ink((24, 24, 26), z), Street.CAR)
            self.polygon(self.upright(x, z, -half, half, 0.28, waist), self.ink(colour, z, 0.92), Street.CAR)
            self.polygon(self.upright(x, z, -half, half, 0.28, 0.45), self.ink(colour, z, 0.6))
            self.polygon(self.upright(x, z, -0.26, 0.26, 0.48, 0.6), self.ink((226, 214, 150) if away else (232, 232, 228), z))
            for a in (-half + 0.2, half - 0.2):
                light = self.project(x + a, waist - 0.2, z)
                self.ellipse(light, 0.17 * scale, 0.1 * scale, self.ink((190, 30, 28) if away else (244, 242, 226), z))

        return draw

    def place_people(self) -> list[tuple[float, Callable[[], None]]]:
        rng = self.rng
        objects: list[tuple[float, Callable[[], None]]] = []
        for _ in range(rng.integers(2, 8)):
            side, z = rng.choice([-1, 1]), rng.uniform(6, 40)
            x = side * (self.road + rng.uniform(0.4, self.walk)) if rng.random() < 0.85 else rng.uniform(-1, 1) * self.road
            objects.append((z, self.walker(x, z)))
        for _ in range(rng.integers(0, 4)):
            z = rng.uniform(6, 30)
            objects.append((z, self.cyclist(rng.choice([-1, 1]) * self.road * rng.uniform(0.4, 0.85), z)))
        return objects

    def walker(self, x: float, z: float) -> Callable[[], None]:
        rng = self.rng
        height, stride, wide = rng.uniform(1.45, 1.9), rng.uniform(-0.3, 0.3), rng.uniform(0.19, 0.27)
        coat, trousers = _hue(int(rng.integers(64))), _vary(rng, (58, 60, 76), 28)
        skin, bag = _vary(rng, (198, 156, 130), 35), rng.random() < 0.3

        def draw() -> None:
            self.person(x, z, 0.0, height, stride, wide, (coat, trousers, skin), Street.PEDESTRIAN)
            if bag:
                square = self.upright(x, z, wide, wide + 0.22, height * 0.42, height * 0.6)
                self.polygon(square, self.ink((70, 50, 40), z), Street.PEDESTRIAN)

        return draw

    def person(
        self, x: float, z: float, lift: float, height: float, stride: float, wide: float, inks: Sequence[_Colour], label: Street
    ) -> None:
        """Draw a standing or striding figure whose feet are `lift` metres above the ground."""
        scale, (coat, trousers, skin) = self.focal / z, inks
        hip, neck = lift + height * 0.5, lift + height * 0.84
        for step in (stride, -stride):
            leg = [self.project(x + step * 0.3, hip, z), self.project(x + step, lift, z)]
            self.line(leg, 0.16 * scale, self.ink(trousers, z), label)
        torso = [
            (-wide * 0.8, hip - 0.05),
            (wide * 0.8, hip - 0.05),
            (wide, neck - 0.08),
            (wide * 0.4, neck),
            (-wide * 0.4, neck),
            (-wide, neck - 0.08),
        ]
        self.polygon([self.project(x + a, y, z) for a, y in torso], self.ink(coat, z), label)
        for arm in (-1, 1):
            points = [self.project(x + arm * wide, neck - 0.1, z), self.project(x + arm * wide * 1.2 - stride * arm, hip, z)]
            self.line(points, 0.1 * scale, self.ink(coat, z, 0.85), label)
        self.ellipse(self.project(x, neck + 0.13, z), 0.1 * scale, 0.13 * scale, self.ink(skin, z), label)
        self.ellipse(self.project(x, neck + 0.2, z), 0.1 * scale, 0.07 * scale, self.ink((50, 40, 34), z), label)

    def cyclist(self, x: float, z: float) -> Callable[[], None]:
        rng = self.rng
        broad = rng.choice([0.25, 0.6, 1.0])  # seen from behind, at an angle, from the side
        coat, helmet, frame = _hue(int(rng.integers(64))), _hue(int(rng.integers(64))), _hue(int(rng.integers(64)))
        trousers, skin = _vary(rng, (52, 54, 66), 25), _vary(rng, (198, 156, 130), 35)

        def draw() -> None:
            scale = self.focal / z
            for hub in (-0.52, 0.52):
                centre = self.project(x + hub * broad, 0.35, z)
                rx, ry = 0.35 * max(0.22, broad) * scale, 0.35 * scale
                box = (centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry)
                self.mark.ellipse(box, fill=int(Street.BICYCLIST))
                self.paint.ellipse(box, outline=self.ink((28, 28, 30), z), width=max(1, round(0.07 * scale)))
            bars = [(-0.52, 0.35), (-0.15, 0.4), (0.38, 0.85), (-0.2, 0.9), (-0.15, 0.4), (0.38, 0.85), (0.52, 0.35)]
            self.line([self.project(x + a * broad, y, z) for a, y in bars], 0.06 * scale, self.ink(frame, z), Street.BICYCLIST)
            self.person(x - 0.15 * broad, z, 0.25, 1.55, 0.12, 0.2, (coat, trousers, skin), Street.BICYCLIST)
            self.line(
                [self.project(x - 0.1 * broad, 1.35, z), self.project(x + 0.4 * broad, 1.0, z)],
                0.1 * scale,
                self.ink(coat, z, 0.9),
                Street.BICYCLIST,
            )
            self.ellipse(
                self.project(x - 0.15 * broad, 1.78, z), 0.13 * scale, 0.09 * scale, self.ink(helmet, z), Street.BICYCLIST
            )

        return draw


_WALLS: tuple[_Colour, ...] = (
    (156, 98, 78),
    (196, 182, 152),
    (142, 142, 146),
    (206, 204, 198),
    (124, 108, 96),
    (176, 140, 104),
    (96, 108, 122),
)
_LEAVES: tuple[_Colour, ...] = ((74, 108, 52), (92, 122, 58), (58, 88, 56), (128, 122, 58), (146, 104, 52))
_CARS: tuple[_Colour, ...] = (
    (178, 180, 184),
    (48, 50, 56),
    (150, 36, 34),
    (42, 66, 118),
    (216, 216, 212),
    (92, 98, 100),
    (60, 92, 70),
)
_SIGNS: tuple[tuple[_Colour, _Colour], ...] = (
    ((196, 36, 36), (236, 236, 232)),
    ((34, 78, 164), (228, 230, 236)),
    ((236, 200, 60), (40, 40, 40)),
    ((28, 110, 70), (232, 236, 232)),
)


def _mix(a: _Colour, b: _Colour, share: float) -> _Colour:
    """Return the colour `share` of the way from `a` to `b`."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]), a[2] + share * (b[2] - a[2])


def _vary(rng: np.random.Generator, colour: _Colour, spread: float, grey: bool = False) -> _Colour:
    """Return a colour near another: in lightness, and unless `grey` also a little in hue."""
    lightness = rng.normal(0, spread)
    tint = np.zeros(3) if grey else rng.normal(0, spread / 4, 3)
    r, g, b = (float(np.clip(c + lightness + t, 10, 245)) for c, t in zip(colour, tint, strict=True))
    return r, g, b


def _hue(number: int) -> _Colour:
    """Return one of 64 clothing and paint colours, from muted to vivid."""
    angle, vivid = 2 * math.pi * (number % 16) / 16, 25 + 25 * (number // 16 % 4)
    r, g, b = (min(245.0, max(15.0, 110 + vivid * math.cos(angle + shift))) for shift in (0.0, 2.09, 4.19))
    return r, g, b
