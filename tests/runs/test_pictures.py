import weakref
from io import BytesIO

import numpy as np
import pytest
import scipy.sparse
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from torchal import DataError, DatasetInputs, SparseInputs
from torchal.runs.pictures import Caption, are_pictures, class_bars, pictures_of, reliability_diagram, sheet, sprite


def opened(picture):
    image = Image.open(BytesIO(picture.content))
    image.load()
    assert image.size == (picture.width, picture.height)
    return np.asarray(image.convert("RGB")).astype(int)


def grey(image):
    return np.asarray(image).tolist()


class TestWhatIsAPicture:
    @pytest.mark.parametrize(
        ("inputs", "answer"),
        [
            (torch.zeros(3, 1, 4, 5), True),
            (torch.zeros(3, 3, 4, 5, dtype=torch.uint8), True),
            (torch.zeros(3, 4, 2, 2, dtype=torch.float16), True),
            (np.zeros((3, 1, 4, 5), dtype=np.float32), True),
            (torch.zeros(3, 2, 4, 5), False),  # two channels
            (torch.zeros(3, 1, 1, 5), False),  # a line
            (torch.zeros(3, 1, 4, 5, dtype=torch.int64), False),
            (torch.zeros(3, 4, 5), False),  # may be series
            (torch.zeros(3, 8), False),
            (DatasetInputs(TensorDataset(torch.zeros(3, 1, 4, 5), torch.arange(3))), True),
            (DatasetInputs([Image.new("L", (3, 4))], to_row=lambda image: torch.zeros(2)), True),
            (
                DatasetInputs([{"image": Image.new("RGB", (3, 4)), "label": 1}], to_row=lambda item: torch.zeros(2)),
                True,
            ),
            (DatasetInputs([{"ids": [1, 2], "label": 1}]), False),
            (DatasetInputs([np.array(["a", "b"])], to_row=lambda _: torch.zeros(2)), False),
            (DatasetInputs([np.zeros((3, 4, 4), dtype=np.float32)]), True),
            (SparseInputs(scipy.sparse.csr_array(np.eye(3))), False),
        ],
    )
    def test_by_its_kind(self, inputs, answer):
        assert are_pictures(inputs) is answer
        if not answer:
            with pytest.raises(DataError, match="the inputs are no pictures"):
                pictures_of(inputs, torch.tensor([0]), side=8)

    def test_bytes_and_shares_stay_as_they_are(self):
        values = torch.tensor([0, 51, 255]).reshape(1, 1, 1, 3).repeat(1, 1, 2, 1)
        for inputs in (values.to(torch.uint8), values / 255, (values / 255).double()):
            assert grey(pictures_of(inputs, torch.tensor([0]), side=8)[0]) == [[0, 51, 255]] * 2

    def test_other_numbers_are_scaled(self):
        values = torch.tensor([[-1.0, 0.0, 4.0], [0.0, 8.0, 16.0]])[:, None, None, :].repeat(1, 1, 2, 1)
        for inputs in (values, values.numpy(), values.to(torch.bfloat16), DatasetInputs(TensorDataset(values))):
            first, second = pictures_of(inputs, torch.arange(2), side=8)
            assert (grey(first), grey(second)) == ([[0, 51, 255]] * 2, [[0, 128, 255]] * 2)
        flat = pictures_of(torch.full((1, 1, 2, 2), 7.0), torch.tensor([0]), side=8)[0]
        assert grey(flat) == [[0, 0]] * 2
        holes = torch.tensor([torch.nan, 1.0]).repeat(1, 1, 2, 1)
        assert grey(pictures_of(holes, torch.tensor([0]), side=8)[0]) == [[0, 255]] * 2

    def test_flat_rows_of_a_known_shape(self):
        values = torch.arange(12.0).reshape(1, 12) / 11
        assert not are_pictures(values)
        assert not are_pictures(values, (1, 2, 5))
        assert are_pictures(values, (3, 2, 2))
        picture = pictures_of(values, torch.tensor([0]), side=8, shape=(1, 3, 4))[0]
        assert grey(picture) == (255 * values.reshape(3, 4)).round().int().tolist()

    def test_pictures_of_other_sizes_and_rows_that_are_none(self):
        rows = [torch.ones(1, 3, 4), Image.new("RGB", (6, 5)), torch.arange(3), None]
        inputs = DatasetInputs(rows, to_row=lambda _: torch.zeros(2))
        found = pictures_of(inputs, torch.arange(4), side=50)
        assert [image.size for image in found] == [(4, 3), (6, 5), (2, 2), (2, 2)]
        assert sheet(found, [Caption("a")] * 4).width == 338

    def test_few_are_held_at_once(self):
        held, most = [0], [0]

        def let_go():
            held[0] -= 1

        class Rows:
            def __len__(self):
                return 1000

            def __getitem__(self, number):
                image = Image.new("L", (200, 200))
                held[0] += 1
                most[0] = max(most[0], held[0])
                weakref.finalize(image, let_go)
                return image

        found = pictures_of(DatasetInputs(Rows(), to_row=lambda _: torch.zeros(2)), torch.arange(1000), side=8)
        assert len(found) == 1000
        assert most[0] < 200

    def test_rows_in_their_order_and_no_larger_than_asked(self):
        images = [Image.new("RGB", (200, 100), (number, 0, 0)) for number in range(4)]
        inputs = DatasetInputs(images, to_row=lambda image: torch.zeros(2))[torch.tensor([3, 2, 1, 0])]
        found = pictures_of(inputs, torch.tensor([0, 3]), side=50)
        assert [(image.size, image.getpixel((0, 0))) for image in found] == [
            ((50, 25), (3, 0, 0)),
            ((50, 25), (0, 0, 0)),
        ]

    def test_many_bits_are_scaled(self):
        deep = Image.fromarray(np.array([[0, 1000], [2000, 4000]], dtype=np.uint16))
        inputs = DatasetInputs([deep], to_row=lambda image: torch.zeros(2))
        assert grey(pictures_of(inputs, torch.tensor([0]), side=8)[0]) == [[0, 64], [128, 255]]

    def test_a_picture_that_cannot_be_read_is_named(self):
        class Broken:
            def __len__(self):
                return 2

            def __getitem__(self, number):
                if number:
                    raise OSError("truncated")
                return Image.new("L", (2, 2))

        inputs = DatasetInputs(Broken(), to_row=lambda image: torch.zeros(2))
        with pytest.raises(DataError, match=r"row 1 of the data set \(Broken\) cannot be read: OSError: truncated"):
            pictures_of(inputs, torch.arange(2), side=8)


class TestSheet:
    def test_a_grid_with_what_was_wrong_in_red(self):
        images = [Image.new("L", (4, 4), 60 * number) for number in range(5)]
        right = [Caption("cat", "cat")] * 5
        wrong = [Caption("cat", "dog"), *right[1:]]
        pixels = [opened(sheet(images, captions)) for captions in (right, wrong)]
        red = [int(((p[..., 0] > 150) & (p[..., 1] < 120)).sum()) for p in pixels]
        assert red[0] == 0
        assert red[1] > 10
        for place, image in enumerate(images):
            middle = pixels[0][6 + 38 + place // 4 * (83 + 2 * 14), 6 + 38 + place % 4 * 83]
            assert abs(int(middle[0]) - image.getpixel((0, 0))) <= 2, place

    def test_without_predictions_there_is_one_line(self):
        images = [Image.new("L", (4, 4))]
        assert sheet(images, [Caption("cat")]).height < sheet(images, [Caption("cat", "cat")]).height

    def test_photographs_are_jpeg_and_small(self):
        chance = np.random.default_rng(0)
        images = [Image.fromarray(chance.integers(0, 255, (128, 128, 3), dtype=np.uint8)) for _ in range(16)]
        picture = sheet(images, [Caption("a")] * 16)
        assert picture.content.startswith(b"\xff\xd8")
        assert len(picture.content) < 150_000

    def test_letters_that_no_font_has(self):
        assert sheet([Image.new("L", (4, 4))], [Caption("猫", "\n")]).height > 0

    def test_a_caption_for_each(self):
        with pytest.raises(DataError, match="needs a caption for each picture, got 0 and 1"):
            sheet([], [Caption("a")])


def blue(pixels, row, *, light):
    colour = (176, 205, 226) if light else (0, 114, 178)
    return int((pixels[row] == colour).all(-1).sum())


class TestClassBars:
    def test_bars_are_as_long_as_the_counts(self):
        pixels = opened(class_bars(torch.tensor([5, 0, 0]), torch.tensor([5, 20, 0]), ["a", "b", "c"]))
        height = (len(pixels) - 8) // 3
        rows = [4 + height * number + 3 for number in range(3)]
        assert [blue(pixels, row, light=True) for row in rows] == [50, 200, 0]
        assert [blue(pixels, row, light=False) for row in rows] == [50, 0, 0]

    def test_no_labels_at_all(self):
        assert class_bars(torch.tensor([0, 0]), torch.tensor([0, 0]), ["a", "b"]).height > 0

    def test_of_many_classes_those_with_most_labels_and_the_rest_together(self):
        before = torch.arange(1000)
        pixels = opened(class_bars(torch.zeros(1000, dtype=torch.int64), before, [str(n) for n in range(1000)]))
        few = opened(class_bars(torch.zeros(24, dtype=torch.int64), torch.arange(24), [str(n) for n in range(24)]))
        assert pixels.shape == few.shape
        height = (len(pixels) - 8) // 24
        lengths = [blue(pixels, 4 + height * number + 3, light=True) for number in range(24)]
        assert lengths[-1] == 200  # the 977 others have more than any of them
        assert max(lengths[:-1]) < 2


class TestReliabilityDiagram:
    def test_points_lie_where_the_bins_are(self):
        pixels = opened(reliability_diagram({"confidence": [0.5, 1.0], "accuracy": [0.5, 1.0], "rows": [10.0, 10.0]}))
        at = np.argwhere((pixels == (0, 114, 178)).all(-1))
        (top, left), (bottom, right) = at.min(0), at.max(0)
        width, height = 288, 180
        assert abs((right - left) - (0.5 * width + 9)) <= 3
        assert abs((bottom - top) - (0.5 * height + 9)) <= 3

    def test_one_bin(self):
        assert reliability_diagram({"confidence": [0.5], "accuracy": [0.0], "rows": [1.0]}).width == 340


def test_a_sprite_is_a_square_grid_row_by_row():
    images = [Image.new("L", (2, 2), 10 * number) for number in range(5)]
    pixels = opened(sprite(images, 2))[..., 0]
    assert pixels[::2, ::2].tolist() == [[0, 10, 20], [30, 40, 0], [0, 0, 0]]
