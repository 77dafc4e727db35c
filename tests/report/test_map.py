import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.report import as_png, draw_map
from torchal.report.looks import LOOKS, THEMES, Letters
from torchal.report.map import _PANEL

LEFT, TOP, RIGHT, BOTTOM = _PANEL
CORNERS = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


@pytest.fixture
def written(monkeypatch):
    """Return a list of what is written onto maps, by all who write."""
    texts = []
    write = Letters.write

    def note(self, image, at, text, colour, *, halo=None):
        texts.append(text)
        write(self, image, at, text, colour, halo=halo)

    monkeypatch.setattr(Letters, "write", note)
    return texts


def panel(image):
    return np.asarray(image).astype(int)[TOP + 4 : BOTTOM - 4, LEFT + 4 : RIGHT - 4]


def where(image, colour, tolerance=0):
    """Return which pixels of the panel have a colour, (n, 2) as x and y."""
    same = (np.abs(panel(image) - colour) <= tolerance).all(2)
    return np.argwhere(same)[:, ::-1] + (LEFT + 4, TOP + 4)


def normal(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


class TestDrawMap:
    def test_up_and_right_are_where_both_coordinates_are_large(self):
        image = draw_map(np.array([*CORNERS, [0.5, 0.5]]), labeled=[0, 3], labels=["a", "b"])
        (first, _), (second, _) = LOOKS[:2]
        x, y = where(image, first).mean(0)
        assert x < LEFT + 40
        assert y > BOTTOM - 40
        x, y = where(image, second).mean(0)
        assert x > RIGHT - 40
        assert y < TOP + 40

    def test_what_is_asked_has_a_ring_and_the_first_have_their_rank(self, written):
        xy = normal(200)
        image = draw_map(xy, asked=list(range(30)))
        assert len(where(image, THEMES["light"].asked)) > 30 * 100
        assert [text for text in written if text.isdigit()] == [str(rank) for rank in range(1, 21)] + ["30", "170"]

    def test_ranks_are_in_the_order_that_was_asked(self, monkeypatch):
        places = {}
        write = Letters.write

        def note(self, image, at, text, colour, *, halo=None):
            if halo:
                places[text] = at
            write(self, image, at, text, colour, halo=halo)

        monkeypatch.setattr(Letters, "write", note)
        draw_map(np.array(CORNERS), asked=torch.tensor([3, 0]))
        assert places["1"][0] > places["2"][0]
        assert places["1"][1] < places["2"][1]

    def test_the_legend_counts(self, written):
        draw_map(
            normal(1000),
            labeled=[5, 6, 7],
            labels=["dog", "cat", "dog"],
            asked=[8, 9],
            title="Pets",
            explained=(0.5, 0.25),
        )
        assert {"Pets", "cat", "1", "dog", "2", "labeled", "3", "to label", "other rows", "995"} <= set(written)
        assert "component 1 (50 % of the variance)" in written
        assert "component 2 (25 % of the variance)" in written
        assert any(text.startswith("1,000 rows, ") for text in written)
        assert not any("farther out" in text for text in written)

    def test_grey_is_darker_where_more_rows_lie(self):
        xy = np.concatenate([np.zeros((100_000, 2)), np.ones((10, 2)), [[0.0, 1.0]]])
        image = np.asarray(draw_map(xy).convert("L")).astype(int)
        many, few, one = (
            image[y - 3 : y + 4, x - 3 : x + 4].min()
            for x, y in ((LEFT + 26, BOTTOM - 26), (RIGHT - 26, TOP + 26), (LEFT + 26, TOP + 26))
        )
        assert many < few < one < image[(TOP + BOTTOM) // 2, (LEFT + RIGHT) // 2]

    def test_a_dark_map_is_brighter_where_more_rows_lie(self, written):
        xy = np.concatenate([np.zeros((1000, 2)), [[1.0, 1.0]]])
        image = np.asarray(draw_map(xy, theme="dark").convert("L")).astype(int)
        around = [
            image[y - 3 : y + 4, x - 3 : x + 4].max() for x, y in ((LEFT + 26, BOTTOM - 26), (RIGHT - 26, TOP + 26))
        ]
        assert around[0] > around[1] > image[(TOP + BOTTOM) // 2, (LEFT + RIGHT) // 2]
        assert any("brighter" in text for text in written)

    @pytest.mark.parametrize("n", [300, 5000])
    def test_outliers_do_not_squash_the_cloud_and_are_counted(self, written, n):
        xy = normal(n).clip(-2.5, 2.5)
        xy[0], xy[1] = (1e9, 0.0), (0.0, -1e30)
        image = draw_map(xy, labeled=[0], labels=["far"])
        assert any("2 rows lie farther out and are drawn at the edge" in text for text in written)
        paint = np.abs(panel(image) - THEMES["light"].panel).sum(2) > 30
        rows, columns = np.nonzero(paint.sum(1) > 2)[0], np.nonzero(paint.sum(0) > 2)[0]
        assert np.ptp(columns) > 0.7 * (RIGHT - LEFT)
        assert np.ptp(rows) > 0.7 * (BOTTOM - TOP)
        assert where(image, LOOKS[0][0])[:, 0].min() > RIGHT - 26  # the labeled one lies at the edge

    def test_of_few_rows_none_lies_outside(self, written):
        draw_map(np.array([*normal(18), [1e6, 0.0]]))
        assert not any("farther out" in text for text in written)

    @pytest.mark.parametrize("n", [1, 2, 30])
    @pytest.mark.parametrize("value", [0.0, -7.5, 1e300])
    def test_rows_that_are_all_equal_lie_in_the_middle(self, n, value):
        xy = np.full((n, 2), value)
        asked = list(range(min(n, 25)))
        image = draw_map(xy, asked=asked)
        x, y = where(draw_map(xy, labeled=[0]), LOOKS[0][0]).mean(0)
        assert abs(x - (LEFT + RIGHT) / 2) < 2
        assert abs(y - (TOP + BOTTOM) / 2) < 2
        assert len(where(image, THEMES["light"].asked)) > 100

    def test_neither_labels_nor_questions_are_needed(self, written):
        draw_map(normal(50).astype(np.float32))
        assert "rows" in written
        assert "to label" not in written
        assert "labeled" not in written

    def test_labeled_rows_without_labels_look_alike(self, written):
        image = draw_map(normal(50), labeled=torch.arange(10))
        assert len(where(image, LOOKS[0][0])) > 10 * 50
        assert written.count("labeled") == 1

    def test_classes_keep_their_looks_from_round_to_round(self):
        for labels in (torch.tensor([2]), ["c"]):
            image = draw_map(normal(9), labeled=[0], labels=labels, classes=["a", "b", "c"])
            assert len(where(image, LOOKS[2][0]))
            assert not len(where(image, LOOKS[0][0]))

    def test_names_are_in_the_order_that_people_count(self, written):
        draw_map(normal(9), labeled=[0, 1, 2], labels=["c10", "c9", "b"])
        assert [text for text in written if text in ("b", "c9", "c10")] == ["b", "c9", "c10"]

    def test_of_too_many_classes_the_rarest_share_a_look(self, written):
        labels = [code for code in range(30) for _ in range(2 if code >= 10 else 1)]
        image = draw_map(normal(100), labeled=list(range(50)), labels=labels)
        assert "10 other classes" in written
        assert "9" not in written[: written.index("10 other classes")]
        assert {str(code) for code in range(10, 30)} <= set(written)
        assert len(where(image, THEMES["light"].rest)) > 100

    def test_names_that_the_font_lacks_become_numbers(self, written):
        draw_map(normal(9), labeled=[0, 1, 2], labels=["Łódź", "狗", "猫"], title="狗")
        assert {"Map of the pool", "class 2", "class 3"} <= set(written)

    def test_a_map_without_a_title_is_less_high(self):
        assert draw_map(normal(9), title="").size == (1600, 1120)

    @settings(deadline=None, max_examples=10)
    @given(data=st.data())
    def test_the_same_rows_make_the_same_file(self, data):
        n = data.draw(st.integers(1, 8))
        number = st.floats(-1e300, 1e300)
        xy = np.array(data.draw(st.lists(st.tuples(number, number), min_size=n, max_size=n)))
        image = draw_map(xy, asked=[0], title=data.draw(st.text(max_size=20)))
        assert image.height in (1120, 1200)
        assert image.width == 1600

    def test_bytes_are_a_png_and_stay_the_same(self):
        first, second = (as_png(draw_map(normal(500), asked=[1], labeled=[2])) for _ in range(2))
        assert first == second
        assert first.startswith(b"\x89PNG")

    def test_bad_input_is_refused(self):
        with pytest.raises(ShapeError, match=r"xy must be \(N, 2\) numbers, got float64 of shape \(3, 3\)"):
            draw_map(np.zeros((3, 3)))
        with pytest.raises(DataError, match=r"at least one row, got none"):
            draw_map(torch.zeros(0, 2))
        with pytest.raises(DataError, match=r"xy must be finite: 1 of 3 rows are not, the first is row 2"):
            draw_map(np.array([[0, 0], [1, 1], [np.nan, 0]]))
        with pytest.raises(ConfigError, match=r"theme must be one of light, dark, got 'blue'"):
            draw_map(normal(3), theme="blue")
        with pytest.raises(ShapeError, match=r"asked must lie in \[0, 3\), got 0 to 3"):
            draw_map(normal(3), asked=[0, 3])
        with pytest.raises(ShapeError, match=r"labeled must be distinct: 1 of 2 are repeats"):
            draw_map(normal(3), labeled=[1, 1])
        with pytest.raises(DataError, match=r"must not be labeled: 1 are, the first is row 2"):
            draw_map(normal(3), labeled=[2], asked=[1, 2])
        with pytest.raises(ShapeError, match=r"explained must be \(2,\), got 1 numbers"):
            draw_map(normal(3), explained=[0.5])

    def test_labels_that_do_not_fit_are_refused(self):
        with pytest.raises(ShapeError, match=r"one for each labeled row: there are 1 for 2 rows"):
            draw_map(normal(3), labeled=[0, 1], labels=["a"])
        with pytest.raises(ConfigError, match=r"labeled must say which rows these are"):
            draw_map(normal(3), labels=["a"])
        with pytest.raises(ConfigError, match=r"classes are those of labels, and there are none"):
            draw_map(normal(3), labeled=[0], classes=["a"])
        with pytest.raises(DataError, match=r"among the 2 classes: 1 are not, as 'c'"):
            draw_map(normal(3), labeled=[0], labels=["c"], classes=["a", "b"])
        with pytest.raises(DataError, match=r"labels must lie in \[0, 2\), the number of classes, got 0 to 2"):
            draw_map(normal(3), labeled=[0, 1], labels=[0, 2], classes=["a", "b"])
        with pytest.raises(DataError, match=r"classes must be distinct: 1 of 2 are repeats"):
            draw_map(normal(3), labeled=[0], labels=["a"], classes=["a", "a"])


class TestAsPng:
    def test_holds_the_picture(self, tmp_path):
        image = Image.new("RGB", (3, 2), (1, 2, 3))
        (tmp_path / "a.png").write_bytes(as_png(image))
        with Image.open(tmp_path / "a.png") as read:
            assert read.convert("RGB").getpixel((2, 1)) == (1, 2, 3)
