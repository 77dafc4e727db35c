import base64
import os
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torchal.errors import DataError
from torchal.report.thumbnails import thumbnail


def opened(small):
    kind, content = small.uri.split(";base64,")
    image = Image.open(BytesIO(base64.b64decode(content, validate=True)))
    image.load()
    assert kind == f"data:image/{image.format.lower()}"
    assert image.size == (small.width, small.height)
    return image


def saved(path, image, **settings_):
    image.save(path, **settings_)
    return path


class TestThumbnail:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [((1000, 500), (256, 128)), ((300, 900), (85, 256)), ((100, 80), (100, 80)), ((1, 1), (1, 1))],
    )
    def test_is_scaled_down_and_never_up(self, tmp_path, size, expected):
        assert opened(thumbnail(saved(tmp_path / "a.png", Image.new("RGB", size)))).size == expected

    def test_photographs_become_jpeg_and_small_pictures_stay_as_they_are(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
        large = thumbnail(saved(tmp_path / "a.jpg", Image.fromarray(noise)))
        assert opened(large).format == "JPEG"
        small = thumbnail(saved(tmp_path / "b.png", Image.fromarray(noise[:28, :28])))
        assert (np.asarray(opened(small)) == noise[:28, :28]).all()

    def test_the_camera_was_turned(self, tmp_path):
        pixels = np.zeros((40, 80, 3), dtype=np.uint8)
        pixels[:, :40] = (255, 0, 0)  # red is on the left, and is to be on top
        exif = Image.Exif()
        exif[0x0112] = 6
        image = opened(thumbnail(saved(tmp_path / "a.jpg", Image.fromarray(pixels), exif=exif, quality=95)))
        assert image.size == (40, 80)
        assert np.asarray(image)[10, 20, 0] > 200
        assert np.asarray(image)[70, 20, 0] < 50
        assert not image.getexif()

    def test_what_is_transparent_stays_so(self, tmp_path):
        image = Image.new("RGBA", (500, 500), (255, 0, 0, 128))
        assert opened(thumbnail(saved(tmp_path / "a.png", image))).getpixel((9, 9)) == (255, 0, 0, 128)
        palette = Image.new("P", (500, 500))
        image = opened(thumbnail(saved(tmp_path / "b.gif", palette, transparency=0)))
        assert image.getpixel((9, 9))[3] == 0

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"])
    def test_all_kinds_of_pixels_are_shown(self, tmp_path, mode):
        image = Image.new(mode, (300, 300))
        kind = {"P": "PNG", "YCbCr": "JPEG"}.get(mode, "TIFF")
        opened(thumbnail(saved(tmp_path / "a", image, format=kind)))

    def test_sixteen_bits_are_scaled_and_not_clipped(self, tmp_path):
        ramp = np.tile(np.linspace(0, 65535, 50).astype(np.uint16), (50, 1))
        grey = np.asarray(opened(thumbnail(saved(tmp_path / "a.png", Image.fromarray(ramp)))))
        assert grey[0, 0] == 0
        assert grey[0, 25] == pytest.approx(130, abs=3)
        assert grey[0, 49] == 255

    def test_numbers_that_are_not_finite_do_not_matter(self, tmp_path):
        values = np.array([[0.0, 1.0], [np.nan, np.inf]], dtype=np.float32)
        grey = np.asarray(opened(thumbnail(saved(tmp_path / "a.tiff", Image.fromarray(values)))))
        assert grey.tolist() == [[0, 255], [0, 255]]

    def test_the_first_of_many_frames_is_shown(self, tmp_path):
        frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
        path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
        assert opened(thumbnail(path)).convert("RGB").getpixel((4, 4)) == (255, 0, 0)

    def test_the_same_file_makes_the_same_bytes(self, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
        path = saved(tmp_path / "a.png", Image.fromarray(noise))
        assert thumbnail(path) == thumbnail(path)

    def test_profiles_and_comments_are_left_out(self, tmp_path):
        path = saved(tmp_path / "a.jpg", Image.new("RGB", (200, 200)), comment=b"x" * 9000, icc_profile=b"y" * 9000)
        assert len(thumbnail(path).uri) < 2000

    def test_what_is_no_picture_is_told(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"<svg>")
        with pytest.raises(DataError, match=r"it begins like no picture"):
            thumbnail(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"it begins like no picture"):
            thumbnail(tmp_path / "b.png")
        for absent in (tmp_path / "c.png", tmp_path, tmp_path / ("n" * 300)):
            with pytest.raises(DataError, match=r"there is no such file|name too long"):
                thumbnail(absent)

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(DataError, match=r"there is no such file"):
            thumbnail(tmp_path / "pipe.png")

    def test_bombs_are_not_unpacked(self, tmp_path, monkeypatch):
        path = saved(tmp_path / "a.png", Image.new("1", (2000, 2000)))
        for most in (3_000_000, 1_000_000):  # where Pillow warns, and where it refuses
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
            with pytest.raises(DataError, match=rf"it has more than {most:,} pixels"):
                thumbnail(path)

    @settings(deadline=None, max_examples=60)
    @given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]))
    def test_damaged_files_are_shown_or_told(self, tmp_path_factory, data, kind):
        buffer = BytesIO()
        Image.linear_gradient("L").convert("RGB").save(buffer, kind)
        content = bytearray(buffer.getvalue())
        for _ in range(data.draw(st.integers(1, 6))):
            content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
        content = content[: data.draw(st.integers(0, len(content)))]
        path = tmp_path_factory.getbasetemp() / "damaged"
        path.write_bytes(content)
        with suppress(DataError):  # no other error
            opened(thumbnail(path))
