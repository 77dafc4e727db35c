"""Image files as rows: what is in them, and what may be wrong with them."""

import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._utils import ExceptionWrapper
from torch.testing import assert_close
from torch.utils.data import DataLoader

from torchal.data import ImageFiles, image_files
from torchal.errors import ConfigError, DataError, MissingExtraError

Image = pytest.importorskip("PIL.Image", reason="image files are written by Pillow, which is not installed")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
AS_ITEM = torch.from_numpy(PIXELS).permute(2, 0, 1) / 255
GREY_ITEM = torch.from_numpy(GREY).expand(3, -1, -1) / 255


def saved(folder, name, pixels=PIXELS, mode=None, **options):
    path = folder / name
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def written_by_torchvision(kind, image, path):
    from torchvision import io

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The image decoding and encoding capabilities", DeprecationWarning)
        getattr(io, f"write_{kind}")(image, str(path))
    return path


def message(path, row=0, files=None):
    with pytest.raises(DataError) as caught:
        ImageFiles(files or [path])[row]
    assert f"{path}, row {row}" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.webp", "a.PNG"])
def test_an_item_is_the_image_as_numbers_from_0_to_1(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    item = ImageFiles([saved(tmp_path, name, **options)])[0]
    assert item.dtype == torch.float32
    assert item.is_contiguous()
    assert torch.equal(item, AS_ITEM)


def test_png_and_jpeg_of_torchvision(tmp_path):
    image = torch.from_numpy(PIXELS).permute(2, 0, 1)
    smooth = torch.linspace(0, 255, 6 * 7).to(torch.uint8).reshape(1, 6, 7).repeat(3, 1, 1)
    png = written_by_torchvision("png", image, tmp_path / "a.png")
    jpeg = written_by_torchvision("jpeg", smooth, tmp_path / "b.jpg")
    files = ImageFiles([png, str(jpeg)])
    assert torch.equal(files[0], AS_ITEM)
    assert_close(files[1], smooth / 255, atol=0.03, rtol=0)
    assert len(files) == 2


@pytest.mark.parametrize(
    ("pixels", "mode", "options", "expected"),
    [
        (GREY, None, {}, GREY_ITEM),
        (np.stack([GREY, 255 - GREY], 2), None, {}, GREY_ITEM),  # grey and alpha
        (np.dstack([PIXELS, GREY]), None, {}, AS_ITEM),  # colours and alpha
        (GREY.astype(np.uint16) * 257, None, {}, GREY_ITEM),
        (GREY, "P", {}, GREY_ITEM),
        (GREY, "P", {"transparency": bytes(range(100))}, GREY_ITEM),
        (GREY, None, {"transparency": 3}, GREY_ITEM),
        (PIXELS, None, {"transparency": (1, 2, 3)}, AS_ITEM),
        (GREY, "1", {}, None),
    ],
)
def test_every_kind_of_png_becomes_rgb(tmp_path, pixels, mode, options, expected):
    item = ImageFiles([saved(tmp_path, "a.png", pixels, mode, **options)])[0]
    if expected is None:
        assert set(item.unique().tolist()) == {0, 1}
        assert torch.equal(item[0], item[2])
    else:
        assert torch.equal(item, expected)


def test_the_first_of_several_frames_is_taken(tmp_path):
    frames = [Image.fromarray(pixels).convert("P") for pixels in (GREY, 255 - GREY)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(ImageFiles([tmp_path / "a.gif"])[0], GREY_ITEM)


def test_the_bytes_say_what_a_file_is_not_its_name(tmp_path):
    path = saved(tmp_path, "a.png")
    assert torch.equal(ImageFiles([path.rename(tmp_path / "a.jpg")])[0], AS_ITEM)


def test_a_transform_gets_bytes_and_makes_the_item(tmp_path):
    seen = []

    def transform(image):
        seen.append((image.dtype, tuple(image.shape)))
        return image.sum()

    files = ImageFiles([saved(tmp_path, "a.png")], transform=transform)
    assert not seen
    assert int(files[0]) == int(PIXELS.sum())
    assert seen == [(torch.uint8, (3, 6, 7))]


def test_transforms_of_torchvision(tmp_path):
    from torchvision.transforms import v2

    steps = [v2.Resize((4, 5), antialias=True), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    item = ImageFiles([saved(tmp_path, "a.png")], transform=v2.Compose(steps))[0]
    assert item.shape == (3, 4, 5)
    assert item.dtype == torch.float32
    assert 0 <= float(item.min()) <= float(item.max()) <= 1


def test_a_mistake_of_the_transform_is_its_own(tmp_path):
    def transform(image):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        ImageFiles([saved(tmp_path, "a.png")], transform=transform)[0]


def test_worker_processes_read_each_file_once(tmp_path):
    names = [f"{i}.png" for i in range(10)]
    paths = [saved(tmp_path, name, np.full((2, 3, 3), 5 * i, np.uint8)) for i, name in enumerate(names)]
    files = ImageFiles(paths)
    batches = list(DataLoader(files, batch_size=4, num_workers=2))
    assert [batch.shape for batch in batches] == [(4, 3, 2, 3), (4, 3, 2, 3), (2, 3, 2, 3)]
    assert torch.cat(batches)[:, 0, 0, 0].mul(255).round().tolist() == [5 * i for i in range(10)]


def test_an_error_in_a_worker_process_keeps_its_kind_and_place(tmp_path):
    with pytest.raises(DataError) as caught:
        ImageFiles([tmp_path / "none.png"])[0]
    # what a DataLoader does with it; itself it waits 5 seconds for each worker once one has failed
    sent = pickle.loads(pickle.dumps(ExceptionWrapper((caught.type, caught.value, caught.tb), where="in a worker")))
    with pytest.raises(DataError, match=r"none\.png, row 0, cannot be read"):
        sent.reraise()


def test_it_can_be_pickled_and_counts_like_a_list(tmp_path):
    files = pickle.loads(pickle.dumps(ImageFiles([saved(tmp_path, "a.png"), tmp_path / "none.png"])))
    assert torch.equal(files[0], AS_ITEM)
    assert torch.equal(files[-2], AS_ITEM)
    assert torch.equal(files[np.int64(0)], AS_ITEM)
    assert message(tmp_path / "none.png", row=1, files=files.paths)
    with pytest.raises(DataError, match=r"none\.png, row 1,"):
        files[-1]
    with pytest.raises(IndexError):
        files[2]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in message(tmp_path / "none.png")
    assert "Is a directory" in message(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"])
def test_a_truncated_file_is_named_with_its_size(tmp_path, name):
    path = saved(tmp_path, name, np.tile(PIXELS, (8, 8, 1)))
    content = path.read_bytes()
    for n in (0, 5, 20, len(content) // 2, len(content) - 40):
        path.write_bytes(content[:n])
        text = message(path)
        assert f"cannot be decoded from its {n} bytes: " in text
        assert not text.endswith(": ")
        assert "BytesIO" not in text


def test_a_changed_byte_of_a_png_is_found(tmp_path):
    path = saved(tmp_path, "a.png", np.tile(PIXELS, (8, 8, 1)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    assert "broken data stream" in message(path)


@pytest.mark.parametrize("content", [b"no image", b"<svg/>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "begin like no image" in message(path) or "Truncated" in message(path)


@pytest.mark.parametrize("pixels", [np.ones((3, 3), np.float32), np.ones((3, 3), np.int32)])
def test_pixels_without_a_white_are_refused(tmp_path, pixels):
    assert "32 bits" in message(saved(tmp_path, "a.tif", pixels))


def test_an_image_of_absurd_size_is_refused(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "a.png"
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    assert "10000000000 pixels" in message(path)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["png", "jpg", "bmp", "tif", "webp", "ppm"]), data=st.data())
def test_a_damaged_file_is_an_image_or_a_data_error(tmp_path, kind, data):
    path = saved(tmp_path, f"a.{kind}")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of metadata
            item, text = ImageFiles([path])[0], None
    except DataError as error:
        item, text = AS_ITEM, str(error)
    assert text is None or f"{path}, row 0" in text
    assert item.shape[0] == 3
    assert 0 <= float(item.min()) <= float(item.max()) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"paths": "a.png"}, ConfigError, "list of paths.*'a.png'"),
        ({"paths": Path("a.png")}, ConfigError, "list of paths.*'a.png'"),
        ({"paths": []}, DataError, "at least one path"),
        ({"paths": ["a.png"], "transform": "resize"}, ConfigError, "transform.*'resize'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        ImageFiles(**arguments)


def test_without_pillow_it_says_which_extra_brings_it(monkeypatch):
    monkeypatch.setattr("torchal._checks.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"torchal\[vision\]"):
        ImageFiles(["a.png"])


class TestImageFiles:
    def test_files_and_classes_are_those_of_image_folder(self, tmp_path):
        from torchvision.datasets import ImageFolder

        for name in (
            "b/2.png",
            "b/10.jpg",
            "b/old/1.png",
            "a/z.webp",
            "a/y.JPEG",
            "a b/x.tif",
            "a/w.bmp",
            "a/b.d/v.png",
        ):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        for name in ("top.png", "a/notes.txt", "a/png"):
            (tmp_path / name).touch()
        files, labels = image_files(tmp_path)
        folder = ImageFolder(str(tmp_path))
        assert [str(file) for file in files] == [path for path, _ in folder.samples]
        assert labels == [folder.classes[number] for number in folder.targets]
        assert image_files(str(tmp_path)) == (files, labels)
        assert (len(files), labels[0], labels[-1]) == (8, "a", "b")

    def test_a_hidden_folder_is_no_class_and_a_linked_one_is(self, tmp_path):
        saved(tmp_path, "x.png")
        for name in (".cache", "a"):
            (tmp_path / "set" / name).mkdir(parents=True)
            saved(tmp_path / "set" / name, "1.png")
        (tmp_path / "more").mkdir()
        saved(tmp_path / "more", "2.png")
        (tmp_path / "set" / "b").symlink_to(tmp_path / "more")
        files, labels = image_files(tmp_path / "set")
        assert labels == ["a", "b"]
        assert torch.equal(ImageFiles(files)[1], AS_ITEM)

    def test_a_folder_without_images_is_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"no folder .*none"):
            image_files(tmp_path / "none")
        with pytest.raises(DataError, match=r"no folder .*a\.png"):
            image_files(saved(tmp_path, "a.png"))
        with pytest.raises(DataError, match="a folder for each class"):
            image_files(tmp_path)
        for name in ("cat", "dog", "owl"):
            (tmp_path / name).mkdir()
        saved(tmp_path / "dog", "1.png")
        with pytest.raises(DataError, match=r"3 classes, and no image in cat, owl; .*\.jpg"):
            image_files(tmp_path)

    def test_a_folder_that_cannot_be_read_is_refused(self, tmp_path, monkeypatch):
        (tmp_path / "a" / "b").mkdir(parents=True)
        saved(tmp_path / "a", "1.png")
        scan = os.scandir

        def denied(path):
            if str(path).endswith("b"):
                raise PermissionError(13, "Permission denied", path)
            return scan(path)

        monkeypatch.setattr("os.scandir", denied)
        with pytest.raises(DataError, match=r"b cannot be read: Permission denied"):
            image_files(tmp_path)


def test_importing_and_listing_load_neither_pillow_nor_torchvision():
    code = "import sys, torchal.data; sys.exit(bool({'PIL', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
