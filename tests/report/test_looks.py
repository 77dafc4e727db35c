import itertools

import numpy as np
import pytest
from PIL import Image, ImageFont

from torchal.errors import ConfigError
from torchal.report.looks import LOOKS, THEMES, Letters, mark, ring, weights

# Machado, Oliveira & Fernandes (2009), severity 1: what linear RGB becomes
_SEEN_BY = {
    "everybody": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def linear(colour):
    c = np.asarray(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return CIELAB of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(a, b):
    """Return WCAG's ratio."""
    high, low = sorted((float(linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


class TestColours:
    def test_all_looks_differ(self):
        assert len(set(LOOKS)) == len(LOOKS) == 21

    @pytest.mark.parametrize("reader", _SEEN_BY)
    def test_colours_of_one_shape_can_be_told_apart(self, reader):
        seen = [lab(np.asarray(_SEEN_BY[reader]) @ linear(colour)) for colour, shape in LOOKS if shape == "disc"]
        assert len(seen) == 7
        closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
        assert closest > 15

    @pytest.mark.parametrize("theme", THEMES.values())
    def test_text_is_legible(self, theme):
        assert contrast(theme.text, theme.ground) > 7
        assert contrast(theme.quiet, theme.ground) > 4.5
        assert contrast(theme.asked, theme.panel) > 12
        assert contrast(theme.asked, theme.dense) > 3
        assert contrast(theme.dense, theme.panel) > 3


class TestMarks:
    @pytest.mark.parametrize("shape", ["disc", "square", "triangle"])
    @pytest.mark.parametrize("radius", [1.6, 5.0, 8.0, 9.8])
    def test_marks_lie_inside_their_masks_with_the_area_of_a_disc(self, shape, radius):
        mask = weights(mark(shape, radius))
        assert mask.shape[0] == mask.shape[1]
        assert mask.shape[0] % 2 == 1
        assert mask.sum() == pytest.approx(np.pi * radius**2, rel=0.25)
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()

    def test_a_ring_is_empty_inside(self):
        mask = weights(ring(12, 3))
        middle = len(mask) // 2
        assert mask[middle, middle] == 0
        assert mask[middle, middle + 12] == 1
        assert mask.sum() == pytest.approx(2 * np.pi * 12 * 3, rel=0.1)


@pytest.fixture(params=[True, False], ids=["FreeType", "no FreeType"])
def letters(request, monkeypatch):
    if not request.param:
        if not hasattr(ImageFont, "load_default_imagefont"):
            pytest.skip("this Pillow gives its other font only where FreeType is missing")
        plain = ImageFont.load_default_imagefont()

        def load_default(size=None):
            if size is not None:
                raise ImportError("The _imagingft C module is not installed")
            return plain

        monkeypatch.setattr(ImageFont, "load_default", load_default)
    return Letters(26)


class TestLetters:
    def test_text_is_as_large_as_it_says(self, letters):
        image = Image.new("RGB", (300, 80), "white")
        letters.write(image, (10, 10), "Agjy", (0, 0, 0))
        ink = np.argwhere(np.asarray(image.convert("L")) < 128)
        (top, left), (foot, right) = ink.min(0), ink.max(0)
        assert top >= 10
        assert foot <= 10 + letters.height
        assert left >= 8
        assert right <= 11 + letters.width("Agjy")
        assert foot - top >= 14

    def test_a_rim_surrounds_the_letters(self, letters):
        image = Image.new("RGB", (100, 60), "black")
        letters.write(image, (20, 10), "7", (0, 0, 0), halo=(255, 255, 255))
        assert np.asarray(image).max() > 200
        bare = Image.new("RGB", (100, 60), "black")
        letters.write(bare, (20, 10), "7", (0, 0, 0))
        assert np.asarray(bare).max() == 0

    @pytest.mark.parametrize(
        ("text", "spelled"),
        [
            ("cat", "cat"),
            ("Žluťoučký kůň", "Zlutoucky kun"),
            ("two\nlines\t here\0", "two lines here"),
            ("狗", None),
            ("", ""),
            ("①", "1"),
            ("\u202e", ""),
        ],
    )
    def test_spells_what_the_font_has(self, letters, text, spelled):
        assert letters.spell(text) == spelled

    def test_long_names_keep_their_ends(self, letters):
        name = "a very long name of a class, number 12"
        short = letters.fit(name, 200)
        assert letters.width(short) <= 200
        assert short.startswith("a very")
        assert short.endswith("er 12")
        assert letters.fit("cat", 200) == "cat"

    def test_a_font_that_is_none_is_refused(self, tmp_path):
        (tmp_path / "a.ttf").write_bytes(b"nothing")
        with pytest.raises(ConfigError, match=r"a\.ttf cannot be read as a font"):
            Letters(20, tmp_path / "a.ttf")
        with pytest.raises(ConfigError, match=r"b\.ttf cannot be read as a font"):
            Letters(20, tmp_path / "b.ttf")
