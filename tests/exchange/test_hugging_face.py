import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from torchal.errors import ConfigError, DataError
from torchal.exchange import (
    Answers,
    Question,
    read_answers,
    read_argilla,
    read_dataset,
    write_argilla,
    write_dataset,
    write_image_folder,
)

CLASS_LABEL = {"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}


def saved(folder, *tables, **state):
    """Write what `Dataset.save_to_disk` writes: streams of Arrow, and a file that names them."""
    folder.mkdir()
    names = [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None, **state}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


class TestDatasets:
    def test_what_is_written_is_read(self, texts, tmp_path):
        folder = write_dataset(texts, tmp_path / "data set")
        assert [file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")] == [
            "data/train-00000-of-00001.parquet"
        ]
        assert read_dataset(folder) == Answers(["row 1", "row 2", "row 3"], [None] * 3)
        write_dataset(texts[:1], folder)
        assert read_dataset(folder).ids == ["row 1"]

    def test_one_that_was_saved_to_disk(self, tmp_path):
        parts = [pa.table({"id": ids, "label": labels}) for ids, labels in ((["a", "b"], ["x", ""]), (["c"], [None]))]
        assert read_dataset(saved(tmp_path / "x", *parts)) == Answers(["a", "b", "c"], ["x", None, None])

    def test_numbers_of_classes_become_names(self, tmp_path):
        table = pa.table({"id": ["a", "b", "c", "d"], "label": [1, 0, -1, None]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(CLASS_LABEL)})
        want = Answers(["a", "b", "c", "d"], ["cat", "dog", None, None])
        assert read_dataset(saved(tmp_path / "x", table)) == want
        pq.write_table(table, tmp_path / "x.parquet")
        assert read_answers(tmp_path / "x.parquet") == want
        plain = table.replace_schema_metadata({"huggingface": "{}"})
        assert read_dataset(saved(tmp_path / "y", plain)).labels == ["1", "0", "-1", None]

    def test_names_all_problems_at_once(self, tmp_path):
        tables = (
            {"id": ["a", None], "label": ["x", "y"]},
            {"id": ["a"], "label": ["z"]},
            {"id": ["b"], "klass": ["z"]},
        )
        for i, table in enumerate(tables):
            pd.DataFrame(table).to_parquet(tmp_path / f"{i}.parquet")
        with pytest.raises(DataError, match="3 problems") as caught:
            read_dataset(tmp_path)
        for words in (
            "row 1 of 0.parquet has no id, and the label 'y'",
            "the id 'a' has the label 'x' in row 0 of 0.parquet, and 'z' in row 0 of 1.parquet",
            "2.parquet has no column 'label'; there are 'id'",
        ):
            assert words in str(caught.value)

    def test_refuses_other_folders(self, tmp_path):
        with pytest.raises(DataError, match="holds no data set"):
            read_dataset(tmp_path)
        table = pa.table({"id": ["a"], "label": ["x"]})
        chosen = saved(tmp_path / "chosen", table, _indices_data_files=[{"filename": "indices.arrow"}])
        with pytest.raises(DataError, match=r"call flatten_indices\(\)"):
            read_dataset(chosen)
        with pytest.raises(DataError, match="no plain data set"):
            read_dataset(saved(tmp_path / "outside", table, _data_files=[{"filename": "../x.arrow"}]))
        cut = saved(tmp_path / "cut", table)
        (cut / "data-00000-of-00001.arrow").write_bytes(b"ARROW")
        with pytest.raises(DataError, match="no Arrow file"):
            read_dataset(cut)
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match="no Parquet file"):
            read_dataset(tmp_path)


class TestImageFolder:
    def test_metadata(self, images, tmp_path):
        path = write_image_folder(images, tmp_path / "images")
        assert path == tmp_path / "images" / "metadata.csv"
        assert pd.read_csv(path)["file_name"].tolist() == ["a/1.png", "a/2.png", "b/3.png"]
        assert read_answers(path).ids == ["row 1", "row 2", "row 3"]

    def test_refuses_images_that_are_not_there(self, images, tmp_path):
        with pytest.raises(DataError, match=r"no image 'a/1\.png' in"):
            write_image_folder(images, tmp_path)


class TestArgilla:
    def test_records(self, texts, tmp_path):
        record = json.loads(write_argilla(texts, tmp_path / "r.json", agent="round 3").read_text())[0]
        assert record == {
            "id": "row 1",
            "fields": {"text": "one"},
            "metadata": {"rank": 1, "score": 0.5, "picked_by": "Margin", "nearest_label": "dog"},
            "suggestions": {"label": {"value": "cat", "score": 0.75, "agent": "round 3"}},
            "responses": {},
            "vectors": {},
        }

    @pytest.mark.parametrize("ending", [".json", ".jsonl"])
    def test_responses(self, texts, tmp_path, ending):
        path = write_argilla(texts, tmp_path / f"r{ending}")
        text = path.read_text()
        records = json.loads(text) if ending == ".json" else [json.loads(line) for line in text.splitlines()]
        records[0]["responses"] = {"label": [{"value": "cat", "user_id": "u1"}, {"value": "dog", "user_id": "u2"}]}
        records[1]["responses"] = {"label": [{"value": "cat", "user_id": "u1", "status": "discarded"}]}
        lines = [json.dumps(record) for record in records]
        path.write_text(json.dumps(records) if ending == ".json" else "\n".join(lines))
        assert read_argilla(path) == Answers(
            ["row 1", "row 1", "row 2", "row 3"],
            ["cat", "dog", None, None],
            ["u1", "u2", "u1", None],
            [False, False, True, False],
        )

    def test_names_all_problems_at_once(self, tmp_path):
        lines = [
            '{"id": "a", "responses": {"label": [{"value": ["x", "y"]}]}}',
            "{",
            '{"id": null, "responses": {"label": [{"value": "x"}]}}',
            '{"id": "b", "responses": {"label": "x"}}',
            "3",
        ]
        (tmp_path / "r.jsonl").write_text("\n".join(lines))
        with pytest.raises(DataError, match="5 problems") as caught:
            read_argilla(tmp_path / "r.jsonl")
        for words in (
            "a response in record 0 is not one label: ['x', 'y']",
            "line 2 is no JSON",
            "record 2 has no id, and the label 'x'",
            "record 3 is no record with responses to 'label'",
            "record 4 is no record with responses to 'label': 3",
        ):
            assert words in str(caught.value)

    def test_refuses(self, texts, tmp_path):
        with pytest.raises(ConfigError, match=r"to .json or .jsonl, got .*r.csv"):
            write_argilla(texts, tmp_path / "r.csv")
        with pytest.raises(DataError, match="'x' has neither a text nor an image"):
            write_argilla([Question("x", 1, None, "m")], tmp_path / "r.json")
