import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal.errors import DataError
from torchal.exchange import Answers, read_argilla, read_coco, read_cvat, read_dataset, read_label_studio
from torchal.exchange.files import read_json, write_json

KEYS = [
    *("row_id", "data", "annotations", "result", "from_name", "label", "value", "choices", "was_cancelled"),
    *("completed_by", "email", "id", "images", "categories", "file_name", "name", "image_id", "category_id"),
    *("attributes", "responses", "user_id", "status", "_data_files", "filename"),
]
TEXTS = st.sampled_from(["label", "a", " ", "data"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.floats(), TEXTS)
PARTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)
READERS = {
    read_label_studio: st.lists(PARTS, max_size=4),
    read_argilla: st.lists(PARTS, max_size=4),
    read_coco: st.fixed_dictionaries(
        dict.fromkeys(("images", "categories", "annotations"), st.lists(PARTS, max_size=4))
    ),
}


def check(read, path):
    """Read a file, which must give answers or a DataError."""
    try:
        assert isinstance(read(path), Answers)
    except DataError as error:
        if str(path) not in str(error):
            raise AssertionError("the error does not say which file") from error


@pytest.mark.parametrize("read", READERS)
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_json_is_answers_or_a_data_error(read, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(data.draw(READERS[read])))
    check(read, path)


@given(PARTS)
@settings(max_examples=60, deadline=None)
def test_any_state_of_a_data_set(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "data set"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text(json.dumps(content))
    check(read_dataset, folder)


BITS = [
    "<annotations>",
    "</annotations>",
    "<image",
    "</image>",
    "name='a'",
    ">",
    "/>",
    "<tag",
    "label='b'",
    "\xff",
    "&",
    "\0",
]


@given(st.lists(st.sampled_from(BITS)))
@settings(max_examples=200, deadline=None)
def test_any_xml(tmp_path_factory, parts):
    path = tmp_path_factory.getbasetemp() / "any.xml"
    path.write_text(" ".join(["<annotations>", *parts, "</annotations>"]), "latin-1")
    check(read_cvat, path)


def test_deep_json(tmp_path):
    (tmp_path / "deep.json").write_text('[{"row_id": "a", "label": ' + "[" * 600 + '"x"' + "]" * 600 + "}]")
    assert read_label_studio(tmp_path / "deep.json").labels == ["x"]


def test_numbers_that_json_has_no_sign_for(tmp_path):
    path = write_json([float("nan"), float("inf"), 0.1, "ä"], tmp_path / "a.json")
    assert read_json(path, list) == [None, None, 0.1, "ä"]
    assert "ä" in path.read_text()
