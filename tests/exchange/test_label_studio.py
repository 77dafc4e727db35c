import json
from xml.etree import ElementTree

import pytest

from torchal.errors import DataError
from torchal.exchange import (
    Answers,
    Question,
    label_studio_config,
    read_label_studio,
    write_label_studio,
    write_label_studio_config,
)


def annotation(choice, by=1, **more):
    value = {"choices": [choice] if isinstance(choice, str) else choice}
    result = {"id": "x", "from_name": "label", "to_name": "item", "type": "choices", "origin": "manual", "value": value}
    return {"id": 7, "completed_by": by, "was_cancelled": False, "result": [result], **more}


SKIP = {"id": 8, "completed_by": 2, "was_cancelled": True, "result": []}


def exported(questions, annotations, path):
    """Write what Label Studio exports after the questions were imported and annotated."""
    tasks = json.loads(write_label_studio(questions, path).read_text())
    for i, (task, given) in enumerate(zip(tasks, annotations, strict=True)):
        task |= {"id": 100 + i, "annotations": given, "drafts": [], "meta": {}, "total_annotations": len(given)}
    path.write_text(json.dumps(tasks))
    return path


class TestWriting:
    def test_tasks(self, texts, tmp_path):
        tasks = json.loads(write_label_studio(texts, tmp_path / "t.json", model_version="round 3").read_text())
        assert tasks[0]["data"] == {
            "row_id": "row 1",
            "text": "one",
            "rank": 1,
            "score": 0.5,
            "picked_by": "Margin",
            "nearest_label": "dog",
            "predicted": "cat",
            "probability": 0.75,
        }
        result = {"id": "predicted", "from_name": "label", "to_name": "item", "type": "choices"}
        result["value"] = {"choices": ["cat"]}
        assert tasks[0]["predictions"] == [{"model_version": "round 3", "score": 0.75, "result": [result]}]
        assert [task["predictions"] for task in tasks[1:]] == [[], []]
        assert tasks[1]["data"]["score"] is None

    def test_images(self, images, tmp_path):
        tasks = json.loads(write_label_studio(images, tmp_path / "t.json").read_text())
        assert [task["data"]["image"] for task in tasks] == ["a/1.png", "a/2.png", "b/3.png"]
        assert "score" not in tasks[0]["predictions"][0]

    def test_the_page(self, tmp_path):
        classes = ['a "cat" & <dog>', "ö"]
        path = write_label_studio_config(classes, tmp_path / "page.xml", shows="image")
        view = ElementTree.parse(path).getroot()
        assert view.find("Image").attrib == {"name": "item", "value": "$image"}
        assert view.find("Choices").attrib["toName"] == "item"
        assert [choice.attrib["value"] for choice in view.iter("Choice")] == classes

    @pytest.mark.parametrize(
        ("classes", "settings", "words"),
        [
            ([], {}, "classes must be names, at least one"),
            (["a", "a"], {}, "1 repeats of 2"),
            (["a", " "], {}, "classes must be names"),
            (["a\x01"], {}, "XML has no place"),
            (["a"], {"shows": "video"}, "shows must be 'text' or 'image', got 'video'"),
        ],
    )
    def test_refuses_a_page(self, classes, settings, words):
        with pytest.raises(DataError, match=words):
            label_studio_config(classes, **settings)

    def test_refuses_questions_with_nothing_to_show(self, texts, images, tmp_path):
        with pytest.raises(DataError, match="some have the one, some the other"):
            write_label_studio([texts[0], images[1]], tmp_path / "t.json")
        with pytest.raises(DataError, match="1 have neither, the first is 'x'"):
            write_label_studio([texts[0], Question("x", 1, None, "m")], tmp_path / "t.json")


class TestReading:
    def test_several_people_skips_and_open_tasks(self, texts, tmp_path):
        people = [annotation(" cat", {"id": 1, "email": "a@b.c"}), annotation("dog", 2)]
        path = exported(texts, [people, [SKIP], []], tmp_path / "export.json")
        assert read_label_studio(path) == Answers(
            ["row 1", "row 1", "row 2", "row 3"],
            ["cat", "dog", None, None],
            ["a@b.c", "2", "2", None],
            [False, False, True, False],
        )

    def test_the_same_person_twice(self, texts, tmp_path):
        path = exported(texts[:1], [[annotation("cat"), annotation("cat")]], tmp_path / "export.json")
        assert read_label_studio(path) == Answers(["row 1"], ["cat"], ["1"])

    def test_minimal_json(self, tmp_path):
        rows = [
            {"row_id": "row 1", "text": "one", "id": 100, "label": "cat", "annotator": 1, "annotation_id": 3},
            {"row_id": "row 1", "text": "one", "id": 100, "label": {"choices": ["dog"]}, "annotator": "a@b.c"},
            {"row_id": "row 2", "text": "two", "id": 101, "annotator": 1},
        ]
        (tmp_path / "min.json").write_text(json.dumps(rows))
        want = Answers(["row 1", "row 1", "row 2"], ["cat", "dog", None], ["1", "a@b.c", "1"])
        assert read_label_studio(tmp_path / "min.json") == want

    def test_other_names(self, tmp_path):
        rows = [{"key": 3, "sentiment": "good", "id": 1}]
        (tmp_path / "min.json").write_text(json.dumps(rows))
        answers = read_label_studio(tmp_path / "min.json", from_name="sentiment", row_id="key")
        assert answers.labels_of() == {"3": "good"}

    def test_names_all_problems_at_once(self, tmp_path):
        tasks = [
            {"data": {"text": "x"}, "annotations": []},
            {"data": {"row_id": "a"}, "annotations": [annotation(["cat", "dog"])]},
            {"data": {"row_id": "b"}, "annotations": [{**annotation("cat"), "result": [{"from_name": "other"}]}]},
            {"data": {"row_id": "c"}, "annotations": [annotation("cat"), annotation("dog")]},
            {"data": {"row_id": "d"}, "annotations": 3},
            {"data": {"row_id": "e"}, "annotations": [{"result": "cat"}]},
            {"text": "x", "id": 4},
            "task",
        ]
        (tmp_path / "export.json").write_text(json.dumps(tasks))
        with pytest.raises(DataError, match="8 problems") as caught:
            read_label_studio(tmp_path / "export.json")
        for words in (
            "the data of task 0 has no 'row_id'; there are 'text'",
            "annotation 0 of task 1 has 2 choices, 'cat', 'dog'; one is wanted",
            "annotation 0 of task 2 has no result called 'label'; there are 'other'",
            "the id 'c' has the label 'cat' by 1 in annotation 0 of task 3, and 'dog' in annotation 1 of task 3",
            "the annotations of task 4 are no list",
            "the result of annotation 0 of task 5 is no list",
            "task 6 has no 'row_id'; there are 'text', 'id'",
            "task 7 is no object: 'task'",
        ):
            assert words in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"[", "is no JSON"),
            (b"\xff[]", "is no JSON"),
            (b"[" * 100_000, "is no JSON"),
            (b"{}", r"must hold a list, got \{\}"),
        ],
    )
    def test_refuses_other_files(self, tmp_path, content, words):
        (tmp_path / "export.json").write_bytes(content)
        with pytest.raises(DataError, match=f"export.json {words}"):
            read_label_studio(tmp_path / "export.json")
