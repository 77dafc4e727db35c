from xml.etree import ElementTree

import pytest

from torchal.errors import DataError
from torchal.exchange import Answers, read_cvat, write_cvat

CLASSES = ["dog", "cat"]
# As CVAT exports a task: its images with tags and whatever else was drawn.
EXPORT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>3</id><labels><label><name>dog</name><color>#ff0000</color><type>any</type></label></labels></task></meta>
  <image id="0" name="a/1.png" width="8" height="6">
    <box label="dog" source="manual" occluded="0" xtl="0" ytl="0" xbr="2" ybr="2" z_order="0"></box>
    <tag label="cat" source="manual"><attribute name="sure">yes</attribute></tag>
  </image>
  <image id="1" name="2.png" width="9" height="5"></image>
  <image id="2" name="b/3.png" width="4" height="4"><tag label="cannot label" source="manual"></tag></image>
</annotations>
"""


class TestWriting:
    def test_images_labels_and_predictions(self, images, tmp_path):
        folder = tmp_path / "images"
        path = write_cvat(images, tmp_path / "a.xml", classes=CLASSES, image_folder=folder, with_predictions=True)
        root = ElementTree.parse(path).getroot()
        assert root.findtext("version") == "1.1"
        assert [label.findtext("name") for label in root.iter("label")] == ["dog", "cat", "cannot label"]
        assert [image.attrib for image in root.iter("image")][1] == {
            "id": "1",
            "name": "a/2.png",
            "width": "9",
            "height": "5",
        }
        assert read_cvat(path, questions=images) == Answers(["row 1", "row 2", "row 3"], ["dog", None, "cat"])

    def test_predictions_are_no_answers_unless_asked_for(self, images, tmp_path):
        path = write_cvat(images, tmp_path / "a.xml", classes=CLASSES, image_folder=tmp_path / "images")
        assert read_cvat(path) == Answers(["a/1.png", "a/2.png", "b/3.png"], [None, None, None])

    def test_refuses(self, images, texts, tmp_path):
        settings = {"image_folder": tmp_path / "images", "with_predictions": True}
        with pytest.raises(DataError, match="'dog', predicted for 'row 1', is none of the classes"):
            write_cvat(images, tmp_path / "a.xml", classes=["cat"], **settings)
        with pytest.raises(DataError, match="'row 1' has no image"):
            write_cvat(texts, tmp_path / "a.xml", classes=CLASSES, **settings)
        assert not (tmp_path / "a.xml").exists()


class TestReading:
    def test_an_export(self, images, tmp_path):
        (tmp_path / "annotations.xml").write_text(EXPORT)
        got = read_cvat(tmp_path / "annotations.xml", questions=images)
        assert got == Answers(["row 1", "row 2", "row 3"], ["cat", None, None], skipped=[False, False, True])

    def test_names_all_problems_at_once(self, images, tmp_path):
        content = (
            EXPORT.replace("b/3.png", "c.png").replace("<box", '<tag label="dog" /><box', 1).replace('name="2.png"', "")
        )
        (tmp_path / "annotations.xml").write_text(content)
        with pytest.raises(DataError, match="3 problems") as caught:
            read_cvat(tmp_path / "annotations.xml", questions=images)
        for words in (
            "image 0, 'a/1.png', has 2 tags, 'cat', 'dog'",
            "image 1 has no name",
            "image 2 names 'c.png': no question has this image",
        ):
            assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("", "is empty"),
            ("<annotations>", "is no XML"),
            ("<coco/>", "must have the root <annotations>, got <coco>"),
            ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares a document type"),
            ('<?xml version="1.0" encoding="none"?><annotations/>', "is no XML"),
            (
                '<annotations><image id="1" name="a"><tag/></image></annotations>',
                r"(\n|.)*image 1, 'a', has a tag without",
            ),
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_refuses(self, tmp_path, content, words, encoding):
        (tmp_path / "a.xml").write_bytes(content.encode(encoding if content else "utf-8"))
        with pytest.raises(DataError, match=f"a.xml {words}"):
            read_cvat(tmp_path / "a.xml")
