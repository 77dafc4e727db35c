import json

import pytest

from torchal.errors import DataError
from torchal.exchange import Answers, read_coco, write_coco

CLASSES = ["dog", "cat"]


@pytest.fixture
def written(images, tmp_path):
    return write_coco(images, tmp_path / "ask.json", classes=CLASSES, image_folder=tmp_path / "images")


def answered(path, **changes):
    """Write annotations, as a tool does, and whatever else is changed."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


class TestWriting:
    def test_images_categories_and_no_annotations(self, written):
        content = json.loads(written.read_text())
        attributes = {"row_id": "row 1", "rank": 1, "score": 0.5, "picked_by": "Margin", "predicted": "dog"}
        assert content["images"][0] == {
            "id": 1,
            "file_name": "a/1.png",
            "width": 8,
            "height": 6,
            "attributes": attributes,
        }
        assert content["categories"] == [
            {"id": 1, "name": "dog", "supercategory": ""},
            {"id": 2, "name": "cat", "supercategory": ""},
        ]
        assert content["annotations"] == []

    def test_sizes_are_left_out_without_a_folder(self, images, tmp_path):
        content = json.loads(write_coco(images, tmp_path / "ask.json", classes=CLASSES).read_text())
        assert "width" not in content["images"][0]

    def test_refuses(self, images, texts, tmp_path):
        with pytest.raises(DataError, match="'row 1' has no image"):
            write_coco(texts, tmp_path / "ask.json", classes=CLASSES)
        with pytest.raises(DataError, match=r"a/1\.png cannot be opened"):
            write_coco(images, tmp_path / "ask.json", classes=CLASSES, image_folder=tmp_path)
        assert not (tmp_path / "ask.json").exists()


class TestReading:
    def test_categories_of_images(self, written):
        annotations = [
            {"id": 1, "image_id": 3, "category_id": 1},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 2, 2]},
            {"id": 3, "image_id": 1, "category_id": 2},
        ]
        got = read_coco(answered(written, annotations=annotations))
        assert got == Answers(["row 1", "row 2", "row 3"], ["cat", None, "dog"])

    def test_a_tool_that_keeps_names_alone(self, written, images):
        names = [{"id": 7, "file_name": "a/2.png"}, {"id": 8, "file_name": "3.png"}]
        path = answered(written, images=names, annotations=[{"image_id": 8, "category_id": 1}])
        assert read_coco(path, questions=images) == Answers(["row 2", "row 3"], [None, "dog"])
        assert read_coco(path).ids == ["a/2.png", "3.png"]

    def test_names_all_problems_at_once(self, written, images):
        path = answered(
            written,
            images=[
                {"id": 1, "file_name": "a/1.png"},
                {"id": 2},
                {"id": 1, "file_name": "b/3.png"},
                {"id": 4, "file_name": "x"},
            ],
            annotations=[
                {"id": 1, "image_id": 1, "category_id": 1},
                {"id": 2, "image_id": 1, "category_id": 2},
                {"id": 3, "image_id": 9, "category_id": 2},
                {"image_id": 1, "category_id": [3]},
            ],
        )
        with pytest.raises(DataError, match="6 problems") as caught:
            read_coco(path, questions=images)
        for words in (
            "image 1 has no id or no file_name: {'id': 2}",
            "two entries are the image 1",
            "image 4 names 'x': no question has this image",
            "the id 'row 1' has the label 'dog' in annotation 1, and 'cat' in annotation 2",
            "annotation 3 is of the image 9, which is not there",
            "annotation 3 is of the category None, which is not there",
        ):
            assert words in str(caught.value)

    def test_refuses_other_files(self, written, tmp_path):
        with pytest.raises(DataError, match="'annotations' must be a list of objects, got None"):
            read_coco(answered(written, annotations=None))
        with pytest.raises(DataError, match="'images' must be a list of objects"):
            read_coco(answered(written, images=[1]))
        written.write_text("[]")
        with pytest.raises(DataError, match="must hold an object"):
            read_coco(written)
