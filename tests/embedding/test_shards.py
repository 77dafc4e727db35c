import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import run_ranks
from torchal.embedding import open_shards, shards
from torchal.embedding.shard_files import in_order
from torchal.embedding.sharded import _ROWS
from torchal.engine.features import FeatureReader
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.functional import k_center_greedy

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIZES = (4, 3, 5)
N, D = sum(SIZES), 6


def make_rows(dtype=np.float32):
    return np.random.default_rng(0).normal(size=(N, D)).astype(dtype)


def write_npy(folder, rows=None, sizes=SIZES, name="img_emb", pad=0):
    """Write what clip-retrieval writes of embeddings."""
    (folder / name).mkdir(parents=True)
    start = 0
    rows = make_rows() if rows is None else rows
    for i, n_rows in enumerate(sizes):
        np.save(folder / name / f"{name}_{i:0{pad}}.npy", rows[start : start + n_rows])
        start += n_rows


def write_metadata(folder, sizes=SIZES, pad=0):
    """Write what clip-retrieval writes beside them, by pandas, with more columns than an id."""
    pandas = pytest.importorskip("pandas")
    (folder / "metadata").mkdir()
    start = 0
    for i, n_rows in enumerate(sizes):
        numbers = range(start, start + n_rows)
        frame = pandas.DataFrame(
            {"image_path": [f"{n:05}" for n in numbers], "caption": [f"a cat {n}" for n in numbers], "width": numbers},
            index=list(numbers),
        )
        frame["exif"] = [{"a": 1}] * n_rows
        frame.to_parquet(folder / "metadata" / f"metadata_{i:0{pad}}.parquet", row_group_size=2)
        start += n_rows


def write_parquet(folder, kind=None, names=None, column="embeddings", rows=None, sizes=SIZES):
    """Write what NeMo Curator writes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = make_rows() if rows is None else rows
    start = 0
    for i, n_rows in enumerate(sizes):
        part = [list(row) for row in rows[start : start + n_rows]]
        table = pa.table(
            {
                "id": [f"doc-{n}" for n in range(start, start + n_rows)],
                column: pa.array(part, kind or pa.list_(pa.float32())),
                "text": ["..."] * n_rows,
            }
        )
        pq.write_table(table, folder / (names[i] if names else f"part.{i}.parquet"), row_group_size=2)
        start += n_rows


@pytest.fixture
def clip(tmp_path):
    write_npy(tmp_path)
    write_metadata(tmp_path)
    return tmp_path


class TestInOrder:
    def names(self, *names, from_zero=True):
        return [path.name for path in in_order([Path(name) for name in names], from_zero=from_zero)]

    def test_numbers_sort_as_numbers(self):
        assert self.names(*(f"e_{i}.npy" for i in (10, 2, *range(2), *range(3, 10))))[2:11:8] == ["e_2.npy", "e_10.npy"]
        assert self.names("e_02.npy", "e_00.npy", "e_01.npy") == ["e_00.npy", "e_01.npy", "e_02.npy"]
        assert self.names("part.1.parquet", "part.0.parquet") == ["part.0.parquet", "part.1.parquet"]
        assert self.names("a-00001-of-00002.parquet", "a-00000-of-00002.parquet")[0] == "a-00000-of-00002.parquet"
        assert self.names("e_8.npy", "e_7.npy", from_zero=False) == ["e_7.npy", "e_8.npy"]
        assert self.names("all.npy") == ["all.npy"]
        assert self.names("7.npy", from_zero=False) == ["7.npy"]

    @given(st.permutations(range(120)), st.integers(0, 4))
    @settings(max_examples=20)
    def test_in_any_order(self, order, pad):
        assert self.names(*(f"e_{i:0{pad}}.npy" for i in order)) == [f"e_{i:0{pad}}.npy" for i in range(120)]

    @pytest.mark.parametrize(
        ("names", "match"),
        [
            (["e_0.npy", "e_2.npy"], r"1 of the shards 0 to 2 is missing beside e_2\.npy, the first is number 1"),
            (["e_1.npy", "e_4.npy"], r"3 of the shards 0 to 4 are missing beside e_4\.npy, the first is number 0"),
            (["e_0.npy", "e_00.npy"], r"e_00\.npy and e_0\.npy have the same number|have the same number, 0"),
            (["e_0.npy", "f_1.npy"], "are not numbered alike"),
            (
                ["e_0.npy", "copy.npy"],
                r"copy\.npy has no number at the end of its name, as img_emb_7\.npy has",
            ),
            (["a-0-of-3.parquet", "a-1-of-3.parquet"], "1 of the shards 0 to 2 is missing .*, the first is number 2"),
            (["e_7.npy"], "7 of the shards 0 to 7 are missing"),
        ],
    )
    def test_what_is_no_row_of_numbers(self, names, match):
        with pytest.raises(DataError, match=match):
            self.names(*names)


class TestNpy:
    @pytest.mark.parametrize("pad", [0, 1, 4])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
    def test_what_clip_retrieval_writes(self, dtype, pad, tmp_path):
        rows = make_rows(dtype)
        write_npy(tmp_path, rows, pad=pad)
        write_metadata(tmp_path, pad=pad)
        found = open_shards(tmp_path)
        assert found.shape == (N, D)
        assert len(found) == found.n_rows == N
        assert (found.n_columns, found.dtype) == (D, dtype)
        assert [shard.rows for shard in found.files] == [range(4), range(4, 7), range(7, 12)]
        assert np.array_equal(np.concatenate(found.arrays), rows)
        assert found.id_columns == ("image_path", "caption", "width")
        assert found.ids([11, 0, 4, 4], "width") == [11, 0, 4, 4]
        assert found.ids(np.array([7, 6]), "caption") == ["a cat 7", "a cat 6"]

    def test_eleven_shards(self, tmp_path):
        write_npy(tmp_path, np.arange(22.0).reshape(11, 2), sizes=[1] * 11)
        assert np.concatenate(open_shards(tmp_path).arrays)[:, 0].tolist() == list(range(0, 22, 2))

    def test_ways_to_name_them(self, clip):
        for source in (clip, str(clip), clip / "img_emb", clip / "img_emb" / "img_emb_*.npy", clip / "*" / "*.npy"):
            found = open_shards(source)
            assert found.n_rows == N
            assert found.ids([8], "image_path") == ["00008"]
        some = open_shards(clip / "img_emb" / "img_emb_[12].npy")
        assert some.n_rows == 8
        assert some.ids([0], "width") == [4]
        write_npy(clip, make_rows()[:, :2], name="text_emb")
        assert open_shards(clip, subfolder="text_emb").shape == (N, 2)
        assert open_shards(clip, subfolder="text_emb").ids([3], "width") == [3]

    def test_without_metadata(self, tmp_path):
        write_npy(tmp_path)
        found = open_shards(tmp_path)
        assert found.id_columns == ()
        assert found.files[1].ids is None
        with pytest.raises(DataError, match="img_emb has no ids: there are no Parquet files beside it"):
            found.ids([0])
        shutil.move(tmp_path / "img_emb", tmp_path / "elsewhere")
        write_metadata(tmp_path)
        assert open_shards(tmp_path / "elsewhere").id_columns == ()  # it may be of something else
        for metadata in (tmp_path / "metadata", tmp_path / "metadata" / "*.parquet"):
            found = open_shards(tmp_path / "elsewhere", metadata=metadata)
            assert found.ids([5], "image_path") == ["00005"]

    def test_metadata_in_the_same_folder(self, clip):
        for path in [*(clip / "img_emb").iterdir(), *(clip / "metadata").iterdir()]:
            shutil.move(path, clip)
        (clip / "img_emb").rmdir()
        assert open_shards(clip).ids([9], "width") == [9]

    def test_one_column_is_the_ids_and_so_is_one_of_that_name(self, tmp_path):
        write_npy(tmp_path, sizes=[N])
        (tmp_path / "metadata").mkdir()
        for columns in (["key"], ["key", "id"]):
            table = pa.table({name: [f"{name} {i}" for i in range(N)] for name in columns})
            pq.write_table(table, tmp_path / "metadata" / "metadata_0.parquet")
            assert open_shards(tmp_path).ids([3]) == [f"{columns[-1]} 3"]

    def test_columns_of_ids_are_those_that_all_have(self, clip):
        table = pq.read_table(clip / "metadata" / "metadata_1.parquet").drop_columns(["width"])
        pq.write_table(table, clip / "metadata" / "metadata_1.parquet")
        found = open_shards(clip)
        assert found.id_columns == ("image_path", "caption")
        with pytest.raises(ConfigError, match="there is no column 'width' of ids among 'image_path', 'caption'"):
            found.ids([0], "width")
        with pytest.raises(ConfigError, match="column must be one of 'image_path', 'caption'"):
            found.ids([0])

    def test_only_row_groups_that_are_needed_are_read(self, clip, monkeypatch):
        read = []
        whole = pq.ParquetFile.read_row_group
        monkeypatch.setattr(
            pq.ParquetFile,
            "read_row_group",
            lambda file, i, columns: read.append((i, columns)) or whole(file, i, columns),
        )
        assert open_shards(clip).ids([11, 10, 0, 11], "width") == [11, 10, 0, 11]
        assert sorted(read) == [(0, ["width"]), (1, ["width"]), (2, ["width"])]  # rows 0; 10; 11, in groups of two

    @pytest.mark.parametrize(("rows", "match"), [([12], "12 to 12"), ([0, -1], "-1 to 0"), ([0.5], "integers")])
    def test_rows_that_are_not_there(self, rows, match, clip):
        with pytest.raises(ShapeError, match=match):
            open_shards(clip).ids(rows, "width")

    @given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), world_size=st.integers(1, 20))
    @settings(max_examples=60, deadline=None)
    def test_parts_are_all_rows_in_order(self, sizes, world_size, tmp_path_factory):
        folder = tmp_path_factory.mktemp("parts")
        n_rows = sum(sizes)
        write_npy(folder, np.arange(n_rows)[:, None], sizes=sizes)
        if not n_rows:
            with pytest.raises(DataError, match="img_emb has no rows, in"):
                open_shards(folder)
            return
        found = open_shards(folder)
        assert np.concatenate(found.arrays)[:, 0].tolist() == list(range(n_rows))
        parts = [range(n_rows)[found.part(rank, world_size)] for rank in range(world_size)]
        assert [row for part in parts for row in part] == list(range(n_rows))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        for part in parts:
            files = [shard for shard in found.files if shard.rows and set(part) & set(shard.rows)]
            if len(files) <= 1:
                assert found.features(slice(part.start, part.stop)).read(0, len(part))[:, 0].tolist() == list(part)

    def test_part_is_of_one_of_them(self, clip):
        found = open_shards(clip)
        for rank, size, match in ((2, 2, "rank must be below world_size, got 2 of 2"), (0, 0, "size"), (-1, 2, "rank")):
            with pytest.raises(ConfigError, match=match):
                found.part(rank, size)

    def test_features_are_for_the_kernels(self, clip):
        found = open_shards(clip)
        rows = torch.from_numpy(make_rows())
        assert FeatureReader(found.features(slice(5, 7))).read(0, 2).equal(rows[5:7])
        assert FeatureReader(found.features(slice(8, None))).rows(torch.tensor([3, 0])).equal(rows[[11, 8]])
        with pytest.raises(ConfigError, match="rows must be a run"):
            found.features(slice(0, 4, 2))
        one = open_shards(clip / "img_emb" / "img_emb_0.npy")
        assert FeatureReader(one.features()).read(0, 4).equal(rows[:4])

    def test_ranks_that_read_a_part_each_pick_the_same_rows_by_id(self, tmp_path):
        write_npy(tmp_path, sizes=[4, 4, 4])
        write_metadata(tmp_path, sizes=[4, 4, 4])
        rows = torch.from_numpy(make_rows())
        expected = k_center_greedy(rows, 5).indices

        def pick(ranks):
            found = open_shards(tmp_path)
            part = found.features(found.part(ranks.rank, ranks.world_size))
            return found.ids(k_center_greedy(part, 5, group=ranks).indices, "image_path")

        assert run_ranks(3, pick) == [[f"{row:05}" for row in expected.tolist()]] * 3

    def test_rows_in_several_files(self, clip):
        assert open_shards(clip).features(slice(3, 9)).read(0, 6).equal(torch.from_numpy(make_rows())[3:9])

    def test_bfloat16(self, tmp_path):
        bits = (make_rows().view(np.uint32) >> 16).astype(np.uint16)
        write_npy(tmp_path, bits.view("V2"))
        found = open_shards(tmp_path)
        assert found.dtype == np.dtype("V2")
        assert np.array_equal(found.arrays[2].view(np.uint16), bits[7:])
        assert (
            found.features(slice(2, 9)).read(0, 7).float().numpy().view(np.uint32).tolist()
            == (bits[2:9].astype(np.uint32) << 16).tolist()
        )


class TestDamage:
    def test_a_shard_is_missing(self, clip):
        (clip / "img_emb" / "img_emb_1.npy").unlink()
        with pytest.raises(
            DataError, match=r"1 of the shards 0 to 2 is missing beside .*img_emb_2\.npy, the first is num"
        ):
            open_shards(clip)
        (clip / "img_emb" / "img_emb_2.npy").unlink()
        with pytest.raises(
            DataError, match=r"metadata_\d\.parquet has ids, but there is no shard of its number among the"
        ):
            open_shards(clip)

    def test_ids_of_a_shard_are_missing(self, clip):
        (clip / "metadata" / "metadata_1.parquet").unlink()
        with pytest.raises(
            DataError, match=r"img_emb_1\.npy has no file of ids with its number beside .*metadata_0\.par"
        ):
            open_shards(clip)

    def test_other_rows_than_ids(self, clip):
        np.save(clip / "img_emb" / "img_emb_1.npy", make_rows()[:2])
        with pytest.raises(DataError, match=r"img_emb_1\.npy has 2 rows, .*metadata_1\.parquet has 3$"):
            open_shards(clip)

    def test_unequal_files(self, clip):
        path = clip / "img_emb" / "img_emb_1.npy"
        for array, match in [
            (make_rows()[:3, :5], r"img_emb_1\.npy has 5 columns, .*img_emb_0\.npy has 6$"),
            (make_rows(np.float16)[:3], r"img_emb_1\.npy is of float16, .*img_emb_0\.npy of float32$"),
            (make_rows()[:3].astype(">f4"), r"img_emb_1\.npy is of >f4, .*img_emb_0\.npy of float32$"),
            (np.asfortranarray(make_rows()[:3]), r"img_emb_1\.npy has its numbers column after column"),
            (np.ones(3), r"img_emb_1\.npy must be a matrix \(n, D\) of numbers, got \(3,\) of float64"),
            (np.array([["a"]]), r"img_emb_1\.npy must be a matrix \(n, D\) of numbers, got \(1, 1\) of <U1"),
        ]:
            np.save(path, array)
            with pytest.raises(DataError, match=match):
                open_shards(clip)
        np.save(path, np.array([[None]]), allow_pickle=True)
        with pytest.raises(DataError, match="must be a matrix"):
            open_shards(clip)

    def test_damaged_files(self, clip):
        path = clip / "img_emb" / "img_emb_1.npy"
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(DataError, match=r"img_emb_1\.npy was cut short: 199 bytes, \(3, 6\) of float32 need 200"):
            open_shards(clip)
        path.write_bytes(b"not an array")
        with pytest.raises(DataError, match=r"img_emb_1\.npy cannot be read as \.npy: "):
            open_shards(clip)
        np.save(path, make_rows()[4:7])
        (clip / "metadata" / "metadata_1.parquet").write_bytes(b"PAR1")
        with pytest.raises(DataError, match=r"metadata_1\.parquet cannot be read as Parquet: "):
            open_shards(clip)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(DataError, match=r"there is no \.npy or \.parquet file in .*nowhere, which does not exist$"):
            open_shards(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"there is no \.npy or \.parquet file in .*\*\.npy$"):
            open_shards(tmp_path / "*.npy")
        (tmp_path / "text_emb").mkdir()
        with pytest.raises(DataError, match=r"and it has no folder img_emb; its folders are text_emb$"):
            open_shards(tmp_path)
        write_npy(tmp_path)
        with pytest.raises(DataError, match=r"there is no \.parquet file in nowhere"):
            open_shards(tmp_path, metadata="nowhere")

    def test_a_shard_that_changes_later(self, clip):
        found = open_shards(clip)
        path = clip / "img_emb" / "img_emb_1.npy"
        os.utime(path, ns=(0, 0))
        with pytest.raises(DataError, match=r"img_emb_1\.npy was changed since it was opened: it has another time"):
            _ = found.arrays
        assert len(found.features(slice(0, 4))) == 4  # is not in that file
        np.save(path, make_rows()[:2])
        with pytest.raises(DataError, match=r"img_emb_1\.npy was changed since it was opened: 200 bytes then, 176 now"):
            found.features(slice(5, 6))
        path.unlink()
        with pytest.raises(DataError, match=r"img_emb_1\.npy cannot be read: No such file"):
            found.features(slice(5, 6))

    def test_ids_that_change_later(self, clip):
        found = open_shards(clip)
        path = clip / "metadata" / "metadata_1.parquet"
        shutil.copyfile(clip / "metadata" / "metadata_0.parquet", path)
        with pytest.raises(DataError, match=r"metadata_1\.parquet was changed since it was opened"):
            found.ids([4], "width")
        assert found.ids([0], "width") == [0]
        path.unlink()
        with pytest.raises(DataError, match=r"metadata_1\.parquet cannot be read: No such file"):
            found.ids([4], "width")


class TestParquet:
    @pytest.mark.parametrize(
        "kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), D), pa.list_(pa.float64())]
    )
    def test_what_nemo_curator_writes(self, kind, tmp_path):
        write_parquet(tmp_path / "in", kind)
        found = open_shards(tmp_path / "in")
        assert found.shape == (N, D)
        assert found.dtype == (np.float64 if kind.value_type == pa.float64() else np.float32)
        assert found.id_columns == ("id", "text")
        assert found.ids([9, 2]) == ["doc-9", "doc-2"]
        assert found.part(1, 2) == slice(6, 12)
        with pytest.raises(
            CapabilityError, match=r"part\.0\.parquet is Parquet, which has no single rows to read: to_npy"
        ):
            found.features()
        with pytest.raises(CapabilityError, match="to_npy"):
            _ = found.arrays
        written = found.to_npy(tmp_path / "out")
        assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["img_emb", "metadata"]
        assert np.array_equal(np.concatenate(written.arrays), make_rows().astype(found.dtype))
        assert written.dtype == found.dtype
        assert written.ids(range(N)) == [f"doc-{i}" for i in range(N)]
        assert written.ids([0], "text") == ["..."]
        with pytest.raises(ConfigError, match=r"img_emb_0\.npy and those behind it are \.npy already"):
            written.to_npy(tmp_path / "again")
        with pytest.raises(ConfigError, match="out holds img_emb already: choose another folder"):
            found.to_npy(tmp_path / "out")

    def test_in_small_chunks(self, tmp_path, monkeypatch):
        write_parquet(tmp_path / "in")
        monkeypatch.setattr(shards, "values_per_chunk", lambda device: 1)  # a row at a time
        assert np.array_equal(np.concatenate(open_shards(tmp_path / "in").to_npy(tmp_path / "out").arrays), make_rows())

    def test_names_that_are_no_numbers_and_another_column(self, tmp_path):
        write_parquet(tmp_path, names=["c1f0.parquet", "0b77.parquet", "9e.parquet"], column="vector")
        with pytest.raises(DataError, match="has no column 'embedding' or 'embeddings'; it has 'id', 'vector', 'text'"):
            open_shards(tmp_path)
        found = open_shards(tmp_path, embedding_column="vector")
        assert [shard.path.name for shard in found.files] == ["0b77.parquet", "9e.parquet", "c1f0.parquet"]
        assert found.ids([0, 3, 8]) == ["doc-4", "doc-7", "doc-0"]
        with pytest.raises(DataError, match=r"the column 'text' must have lists of numbers, it is of (large_)?string"):
            open_shards(tmp_path, embedding_column="text")

    def test_a_missing_number(self, tmp_path):
        write_parquet(tmp_path)
        (tmp_path / "part.1.parquet").unlink()
        with pytest.raises(
            DataError, match=r"1 of the shards 0 to 2 is missing beside .*part\.2\.parquet, the first is nu"
        ):
            open_shards(tmp_path)

    def test_unequal_widths(self, tmp_path):
        write_parquet(tmp_path)
        table = pa.table({"embeddings": [[1.0, 2.0]]}, pa.schema([("embeddings", pa.list_(pa.float32()))]))
        pq.write_table(table, tmp_path / "part.1.parquet")
        with pytest.raises(DataError, match=r"part\.1\.parquet has 2 columns, .*part\.0\.parquet has 6"):
            open_shards(tmp_path)

    @pytest.mark.parametrize("fixed", [True, False])
    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (None, r"part\.1\.parquet: row 2 has no embedding, expected 6"),
            ([0.0] * 5, r"part\.1\.parquet: row 2 has 5 numbers, expected 6"),
            ([0.0] * 5 + [None], r"part\.1\.parquet: row 2 has a number that is missing"),
        ],
    )
    def test_a_row_that_is_none(self, value, match, fixed, tmp_path):
        if fixed and value == [0.0] * 5:
            return  # pyarrow cannot make one
        write_parquet(tmp_path / "in", pa.list_(pa.float32(), D) if fixed else None)
        path = tmp_path / "in" / "part.1.parquet"
        table = pq.read_table(path)
        rows = [*table.column("embeddings").to_pylist()[:2], value]
        pq.write_table(table.set_column(1, "embeddings", pa.array(rows, table.schema.field("embeddings").type)), path)
        with pytest.raises(DataError, match=match):
            open_shards(tmp_path / "in").to_npy(tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_file_that_changes_later(self, tmp_path):
        write_parquet(tmp_path / "in")
        found = open_shards(tmp_path / "in")
        os.utime(tmp_path / "in" / "part.2.parquet", ns=(0, 0))
        with pytest.raises(DataError, match=r"part\.2\.parquet was changed since it was opened"):
            found.to_npy(tmp_path / "out")

    def test_without_ids(self, tmp_path):
        (tmp_path / "in").mkdir()
        table = pa.table({"embedding": pa.array(make_rows().tolist(), pa.list_(pa.float16(), D))})
        pq.write_table(table, tmp_path / "in" / "only.parquet")
        written = open_shards(tmp_path / "in").to_npy(tmp_path / "out")
        assert written.id_columns == ()
        assert written.dtype == np.float16
        assert np.array_equal(written.features().read(0, N).numpy(), make_rows(np.float16))


def test_the_default_is_what_the_documentation_says():
    assert _ROWS == 100_000
