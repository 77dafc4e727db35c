import base64
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.report.pages import HOSTILE, read_page, write_rich_page
from tests.report.test_looks import contrast
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.exchange import Question
from torchal.report import write_page
from torchal.report.markup import clean
from torchal.report.style import CSS, SCRIPT

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def asked(rank=1, **known):
    return Question(**{"id": f"r{rank}", "rank": rank, "score": 0.5, "picked_by": "Margin", **known})


def page_of(tmp_path, questions, **settings_):
    path = tmp_path / "page.html"
    write_page(path, **{"title": "To label", "questions": questions, "folder": tmp_path, **settings_})
    return read_page(path)


def rows_of(page):
    """Return the cells' texts of each row, by the titles of the columns."""
    table = page.one("table", kind="questions")
    titles = [head.text for head in table.one("thead").all("th")]
    rows = table.one("tbody").all("tr")
    cells = [[cell for cell in row.children if not isinstance(cell, str)] for row in rows]
    assert all(len(row) == len(titles) for row in cells)
    return [dict(zip(titles, row, strict=True)) for row in cells]


class TestWritePage:
    @pytest.mark.parametrize("hostile", [False, True])
    def test_fetches_nothing_and_runs_nothing_but_its_own_script(self, tmp_path, hostile):
        path, _ = write_rich_page(tmp_path, hostile=hostile)
        page = read_page(path)
        (script,) = page.all("script")
        assert script.text.strip() == SCRIPT.strip()
        assert script.attributes == {}
        assert page.one("style").text.strip() == CSS.strip()
        assert page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"] == POLICY
        addresses = [
            element.attributes[name]
            for element in page.all()
            for name in ("src", "href", "srcset", "data", "action", "poster")
            if name in element.attributes
        ]
        assert len(addresses) == 2 + 30 + 2
        assert all(address.startswith("data:") or address == "#questions" for address in addresses)
        assert not [name for element in page.all() for name in element.attributes if name.startswith("on")]
        assert not {"iframe", "object", "embed", "form", "base"} & {element.tag for element in page.all()}
        assert not re.search(r"url\(|@import|@font-face", CSS)

    def test_says_whatever_it_was_told(self, tmp_path):
        path, questions = write_rich_page(tmp_path, hostile=True)
        page = read_page(path)
        assert page.one("head").one("title").text == page.one("h1").text == f"Rows to label{HOSTILE}"
        for row, question in zip(rows_of(page), questions, strict=True):
            assert row["Rank"].text == str(question.rank)
            assert row["Id"].text == question.id
            assert row["Model's guess"].text == question.predicted
            assert row["Nearest label"].text == f"{question.nearest_label} {question.nearest_id}"
            assert question.text in row["What to label"].text
            assert row["What to label"].one("img").attributes["alt"] == f"picture of row {question.id}"
            assert float(row["Score"].attributes["data-v"]) == question.score
            assert float(row["Sure"].attributes["data-v"]) == question.probability
            assert row["Stands for"].text == str(question.represents)
        assert f"Why these rows. {HOSTILE}" in page.one("section", kind="notes").text
        assert HOSTILE in page.one("pre").text
        assert f"Mind the gap. {HOSTILE}" in page.one("section", kind="warnings").text
        assert f"cat{HOSTILE}" in page.one("table", kind="classes").text

    @settings(deadline=None, max_examples=50)
    @given(text=st.text(st.characters(exclude_categories=[]), max_size=300))
    def test_any_text_is_read_as_it_is(self, tmp_path_factory, text):
        folder = tmp_path_factory.getbasetemp()
        question = asked(
            id=text, picked_by=text, predicted=text, nearest_id=text, nearest_label=text, text=text, label=text
        )
        page = page_of(
            folder,
            [question],
            title=text,
            notes=[text],
            command=text,
            warnings=[text],
            classes={text: 1},
            predicted={text: 2},
        )
        (row,) = rows_of(page)
        text = clean(text)
        assert page.one("title").text == page.one("h1").text == text
        assert row["Id"].text == text
        assert text in row["What to label"].text
        assert page.one("code").text == text
        assert page.one("table", kind="classes").one("bdi").text == text
        assert len(page.all("script")) == 1

    @settings(deadline=None, max_examples=15)
    @given(image=st.text(st.characters(exclude_categories=[]), min_size=1, max_size=60))
    def test_any_name_of_a_picture_is_shown(self, tmp_path_factory, image):
        folder = tmp_path_factory.mktemp("empty")
        page = page_of(folder, [asked(image=image)])
        (row,) = rows_of(page)
        assert clean(image) in row["What to label"].text
        assert clean(image) in page.one("section", kind="warnings").text

    def test_can_be_read_aloud(self, tmp_path):
        page = read_page(write_rich_page(tmp_path)[0])
        assert page.one("html").attributes["lang"] == "en"
        assert [element.tag for element in page.all() if element.tag in ("h1", "h2", "h3")] == ["h1", *["h2"] * 6, "h3"]
        assert all(head.attributes.get("scope") in ("col", "row") for head in page.all("th"))
        assert all(image.attributes.get("alt") for image in page.all("img"))
        assert all(table.all("caption") for table in page.all("table"))
        assert page.one("svg").attributes["role"] == "img"
        assert page.one("svg").attributes["aria-label"].startswith("Histogram of the largest probability of 99 rows")
        for field in (*page.all("input"), *page.all("select")):
            assert field.parent.tag == "label"
        ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
        assert len(ids) == len(set(ids))
        for box in page.all("div", kind="box"):
            assert box.attributes["aria-labelledby"] in ids
            assert box.attributes["tabindex"] == "0"

    @pytest.mark.parametrize("scheme", [0, 1])
    def test_colours_are_legible(self, scheme):
        names = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)]
        colours = {
            name: tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))
            for name, code in names[scheme].items()
            if len(code) == 7
        }
        assert len(colours) == 14
        for ground in ("ground", "card", "stripe", "track"):
            for text in ("text", "quiet"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["accent"], colours["card"]) >= 4.5
        assert contrast(colours["warn-text"], colours["warn-ground"]) >= 4.5
        for mark in ("guess", "mine", "tick"):
            assert contrast(colours[mark], colours["card"]) >= 3, mark

    def test_the_same_input_makes_the_same_bytes(self, tmp_path):
        first = write_rich_page(tmp_path)[0].read_bytes()
        assert write_rich_page(tmp_path)[0].read_bytes() == first

    def test_is_written_whole_or_not_at_all(self, tmp_path, monkeypatch):
        path, _ = write_rich_page(tmp_path)
        before = path.read_bytes()

        def fail(*_):
            raise OSError("the disk is full")

        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match=r"the disk is full"):
            write_page(path, title="another", questions=[asked()])
        assert path.read_bytes() == before

    def test_folders_on_the_way_are_made(self, tmp_path):
        write_page(str(tmp_path / "a" / "b" / "page.html"), title="x", questions=[asked()])
        assert read_page(tmp_path / "a" / "b" / "page.html").one("h1").text == "x"

    def test_questions_are_shown_by_rank(self, tmp_path):
        page = page_of(tmp_path, [asked(3), asked(1), asked(2)])
        assert [row["Id"].text for row in rows_of(page)] == ["r1", "r2", "r3"]

    def test_what_nobody_knows_has_no_column(self, tmp_path):
        page = page_of(tmp_path, [asked(1, score=None), asked(2, score=None)])
        assert list(rows_of(page)[0]) == ["Rank", "Id"]
        assert not page.all("svg")
        assert not page.all("figure")
        assert not page.all("select")
        page = page_of(tmp_path, [asked(1, label="cat"), asked(2, picked_by="Uniform", distance=0.0)])
        assert list(rows_of(page)[0]) == ["Rank", "Id", "Score", "Distance", "Picked by", "Label"]
        assert rows_of(page)[0]["Distance"].attributes["data-v"] == ""
        assert rows_of(page)[1]["Distance"].attributes["data-v"] == "0.0"

    def test_numbers_that_are_not_finite_are_sorted(self, tmp_path):
        scores = [float("inf"), float("nan"), float("-inf")]
        page = page_of(tmp_path, [asked(rank, score=score) for rank, score in enumerate(scores, 1)])
        assert [row["Score"].attributes["data-v"] for row in rows_of(page)] == ["Infinity", "", "-Infinity"]

    def test_long_texts_are_shortened(self, tmp_path):
        texts = ["short", "word " * 100, "x" * 10_000]
        page = page_of(tmp_path, [asked(rank, text=text) for rank, text in enumerate(texts, 1)])
        cells = [row["What to label"] for row in rows_of(page)]
        assert not cells[0].all("details")
        assert cells[1].one("summary").one("span", kind="short").text == "word " * 46 + "word … "
        assert texts[1] in cells[1].text
        assert "x" * 4000 in cells[2].text
        assert "x" * 4001 not in cells[2].text
        assert "and 6,000 letters more" in cells[2].text

    def test_of_many_long_texts_the_last_are_short(self, tmp_path):
        page = page_of(tmp_path, [asked(rank, text="x" * 300) for rank in range(1, 1003)])
        cells = [row["What to label"] for row in rows_of(page)]
        assert sum(bool(cell.all("details")) for cell in cells) == 1000
        assert cells[-1].text == "x" * 240 + " … and 60 letters more"

    def test_pictures_are_inside_and_no_larger_than_they_need_be(self, tmp_path):
        Image.new("RGB", (1000, 500), "red").save(tmp_path / "a.png")
        page = page_of(tmp_path, [asked(image="a.png")])
        image = page.one("img").attributes
        assert (image["width"], image["height"]) == ("256", "128")
        assert base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))[:2] == b"\xff\xd8"

    def test_the_first_rows_alone_have_pictures(self, tmp_path):
        page = read_page(write_rich_page(tmp_path, n=7, thumbnails=5)[0])
        pictures = [row["What to label"].all("img") for row in rows_of(page)]
        assert [len(images) for images in pictures] == [1] * 5 + [0] * 2
        assert "7.png" in rows_of(page)[-1]["What to label"].text

    def test_pictures_that_cannot_be_shown_are_told(self, tmp_path):
        (tmp_path / "bad.png").write_bytes(b"\x89PNG and no more")
        names = ["bad.png", "absent.png", "https://example.com/a.png", "nul\0.png", "\ud800.png"]
        questions = [asked(rank, image=image) for rank, image in enumerate(names, 1)]
        path = tmp_path / "page.html"
        problems = write_page(path, title="x", questions=questions, folder=tmp_path)
        assert len(problems) == 5
        assert problems[1] == "the picture of row r2, absent.png, cannot be shown: there is no such file"
        page = read_page(path)
        assert len(page.one("section", kind="warnings").all("li")) == 5
        assert len(page.all("span", role="img")) == 5
        assert not page.all("img")

    def test_many_pictures_that_cannot_be_shown_are_counted(self, tmp_path):
        questions = [asked(rank, image="absent.png") for rank in range(1, 31)]
        page = page_of(tmp_path, questions)
        items = page.one("section", kind="warnings").all("li")
        assert len(items) == 21
        assert items[-1].text == "10 further pictures cannot be shown"

    def test_classes_have_bars_of_their_shares(self, tmp_path):
        page = page_of(tmp_path, [asked()], classes={"a": 3, "b": 1, "c": 0}, predicted={"a": 50, "d": 50})
        rows = page.one("table", kind="classes").one("tbody").all("tr")
        assert [row.one("th").text for row in rows] == ["a", "b", "c", "d"]
        widths = [[bar.attributes["style"] for bar in row.all("span", kind="bar")] for row in rows]
        assert widths == [
            ["width:100.0%", "width:66.7%"],
            ["width:33.3%", "width:0.0%"],
            ["width:0.0%", "width:0.0%"],
            ["width:0.0%", "width:66.7%"],
        ]
        assert [count.text for count in rows[0].all("span", kind="count")] == ["3 75 %", "50 50 %"]

    def test_of_many_classes_the_largest_are_shown(self, tmp_path):
        page = page_of(tmp_path, [asked()], predicted={f"c{i}": i for i in range(100)})
        rows = page.one("table", kind="classes").one("tbody").all("tr")
        assert len(rows) == 30
        assert rows[0].one("th").text == "c71"
        assert rows[-1].one("th").text == "71 other classes"
        assert rows[-1].one("span", kind="count").text.startswith(f"{sum(range(71)):,} ")

    def test_no_labels_yet_make_no_division_by_0(self, tmp_path):
        page = page_of(tmp_path, [asked()], classes={"a": 0}, predicted={})
        assert page.one("table", kind="classes").one("span", kind="count").text == "0 0 %"

    @pytest.mark.parametrize("kind", [list, np.float32, torch.tensor])
    def test_confidence_is_counted_in_twenty_parts(self, tmp_path, kind):
        values = [0.0, 0.52, 0.53, 1.0]
        values = np.array(values, np.float32) if kind is np.float32 else kind(values)
        page = page_of(tmp_path, [asked(probability=0.52)], confidence=values)
        titles = [bar.one("title").text for bar in page.one("svg").all("rect")]
        assert titles == ["0 to 5 %: 1 row", "50 to 55 %: 2 rows", "95 to 100 %: 1 row"]
        assert "mean 51 %" in page.one("svg").text
        assert len(page.one("svg").one("g").all("path")) == 1

    def test_what_is_known_of_the_pool_is_told(self, tmp_path):
        page = page_of(tmp_path, [asked()], classes={"a": 1200}, predicted={"a": 50, "b": 50_000})
        tiles = {tile.one("dt").text: tile.one("dd").text for tile in page.one("dl").all("div")}
        assert tiles == {"Rows to label": "1", "Labeled so far": "1,200", "Rows predicted": "50,050"}

    def test_a_page_of_ten_thousand_rows_is_as_large_as_it_says(self, tmp_path):
        many = [
            asked(rank, predicted="cat", probability=0.5, nearest_id="r9", nearest_label="dog", distance=rank / 7)
            for rank in range(1, 10_001)
        ]
        path = tmp_path / "page.html"
        write_page(path, title="x", questions=many)
        assert path.stat().st_size < 6_500_000

    def test_bad_input_is_refused_and_nothing_is_written(self, tmp_path):
        path = tmp_path / "page.html"

        def refused(error, message, **settings_):
            with pytest.raises(error, match=message):
                write_page(path, **{"title": "x", "questions": [asked()], **settings_})

        refused(DataError, r"at least one question, got none", questions=[])
        refused(DataError, r"ranks must be whole numbers from 1, got 0 for row r0", questions=[asked(0)])
        refused(
            DataError, r"probabilities must be from 0 to 1, got 1\.5 for row r1", questions=[asked(probability=1.5)]
        )
        refused(DataError, r"map_png must be a PNG file, got 3 bytes that begin with b'GIF'", map_png=b"GIF")
        refused(ConfigError, r"map_png is needed too", dark_map_png=b"GIF")
        refused(DataError, r"classes must be counts of at least 0, got -1 for 'a'", classes={"a": -1})
        refused(DataError, r"predicted must be counts of at least 0, got nan for 'a'", predicted={"a": float("nan")})
        refused(
            ShapeError, r"confidence must be \(N,\) numbers, got float64 of shape \(2, 2\)", confidence=np.ones((2, 2))
        )
        refused(ShapeError, r"confidence must be \(N,\) numbers", confidence=[])
        refused(DataError, r"1 of 3 are not, the first is nan, row 1", confidence=[0.5, float("nan"), 1.0])
        refused(ConfigError, r"thumbnails must be a whole number of at least 0, got -1", thumbnails=-1)
        refused(ConfigError, r"notes must be a list of texts, got one text, 'why'", notes="why")
        assert not Path(path).exists()
