import itertools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from tests import forks
from tests.embedding import sharded_program as program
from tests.embedding.sharded_program import IDS, Counting, N, contents, in_ranks, make_rows, run
from torchal import _checks
from torchal.embedding import embed, id_columns, npy_stream, open_shards, shard_folder, sharded
from torchal.embedding.shard_folder import Ranges, deal
from torchal.errors import ConfigError, DataError, MissingExtraError, RunError, ShapeError

ROOT = Path(__file__).parents[2]
NAMES = [
    "embed.json",
    *(f"img_emb/img_emb_{i}.npy" for i in range(6)),
    *(f"logits/logits_{i}.npy" for i in range(6)),
    *(f"metadata/metadata_{i}.parquet" for i in range(6)),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the bytes of a pass of one process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "shards"
    run(folder)
    return contents(folder)


class TestRanges:
    def test_by_hand(self):
        ranges = Ranges(7, 3)
        assert [ranges.rows(i) for i in range(len(ranges))] == [range(3), range(3, 6), range(6, 7)]
        assert [ranges.number(i) for i in range(3)] == ["0", "1", "2"]
        assert [len(Ranges(*of)) for of in ((6, 3), (1, 9), (9, 1))] == [2, 1, 9]
        assert Ranges(10, 1).number(3) == "03"

    @given(n_rows=st.integers(1, 10_000), shard_rows=st.integers(1, 3000))
    def test_shards_have_every_row_once_and_names_sort_as_numbers(self, n_rows, shard_rows):
        ranges = Ranges(n_rows, shard_rows)
        shards = [ranges.rows(i) for i in range(len(ranges))]
        assert list(itertools.chain(*shards)) == list(range(n_rows))
        assert all(shards)
        assert {len(rows) for rows in shards[:-1]} <= {shard_rows}
        numbers = [ranges.number(i) for i in range(len(ranges))]
        assert sorted(numbers) == numbers

    @given(
        lacking=st.lists(st.none() | st.integers(0, 1000), max_size=60),
        n_ranks=st.integers(1, 70),
    )
    def test_unfinished_shards_are_dealt_evenly(self, lacking, n_ranks):
        dealt = deal(lacking, n_ranks)
        unfinished = [i for i, rows in enumerate(lacking) if rows is not None]
        assert len(dealt) == n_ranks
        assert sorted(itertools.chain(*dealt)) == unfinished
        assert all(mine == sorted(mine) for mine in dealt)
        costs = [max(1, rows) for rows in lacking if rows is not None]
        for mine in dealt:
            cost = sum(max(1, lacking[i]) for i in mine)
            assert cost <= sum(costs) / n_ranks + max(costs, default=0)
            assert mine or len(unfinished) < n_ranks

    @given(n_shards=st.integers(1, 60), n_ranks=st.integers(1, 60))
    def test_no_rank_is_idle_where_there_are_as_many_shards(self, n_shards, n_ranks):
        dealt = deal([5] * n_shards, n_ranks)
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


class TestOneProcess:
    def test_the_layout_and_what_is_in_it(self, tmp_path):
        found = run(tmp_path / "shards")
        assert list(contents(tmp_path / "shards")) == NAMES
        expected = embed(Counting(), make_rows(), batch_size=2, progress=False)
        for shards, values in zip(found, expected, strict=True):
            assert shards.shape == values.shape
            assert np.array_equal(np.concatenate(shards.arrays), values)  # the same batches: the same bits
            assert shards.ids(torch.tensor([46, 0, 8])) == ["row 46", "row 0", "row 8"]
        assert [shard.rows for shard in found.features.files][-1] == range(40, 47)
        loaded = np.load(tmp_path / "shards" / "img_emb" / "img_emb_5.npy")
        assert np.array_equal(loaded, expected.features[40:])

    def test_what_is_finished_is_read(self, tmp_path, undisturbed):
        run(tmp_path / "shards")
        module = Counting()
        found = run(tmp_path / "shards", module, shard_rows=None)
        assert module.n_passes == 0
        assert contents(tmp_path / "shards") == undisturbed
        assert found.logits.shape == (N, 3)

    def test_what_is_finished_may_come_from_another_device(self, tmp_path):
        run(tmp_path / "shards")
        manifest = tmp_path / "shards" / "embed.json"
        manifest.write_text(manifest.read_text().replace('"cpu"', '"cuda"'))
        run(tmp_path / "shards")
        shutil.move(tmp_path / "shards" / "img_emb", tmp_path / "shards" / "unfinished" / "img_emb")
        with pytest.raises(ConfigError, match="device was 'cuda', is 'cpu'"):
            run(tmp_path / "shards")

    def test_shards_that_are_gone(self, tmp_path):
        run(tmp_path / "shards")
        (tmp_path / "shards" / "img_emb" / "img_emb_5.npy").unlink()
        with pytest.raises(DataError, match=r"metadata_5\.parquet has ids, but there is no shard of its number"):
            run(tmp_path / "shards")
        (tmp_path / "shards" / "metadata" / "metadata_5.parquet").unlink()
        with pytest.raises(DataError, match="img_emb has 40 rows in 5 shards, 47 were written"):
            open_shards(tmp_path / "shards")

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_checks, "find_spec", lambda name: None)
        with pytest.raises(MissingExtraError, match=r"pyarrow is not installed; pip install 'torchal\[tables\]'"):
            run(tmp_path / "shards")
        assert not (tmp_path / "shards").exists()

    def test_rows_in_a_shard_are_those_that_it_was_begun_with(self, tmp_path):
        module = Counting(fails_at=7)
        with pytest.raises(RuntimeError, match="the pass failed"):
            run(tmp_path / "shards", module)
        module.fails_at = None
        with pytest.raises(ConfigError, match=r"shards is of something else: shard_rows was 8, is 6\. Choose another"):
            run(tmp_path / "shards", module, shard_rows=6)
        module.n_passes = 0
        found = run(tmp_path / "shards", module, shard_rows=None)
        assert module.n_passes == 24 - 7
        assert len(found.features.files) == 6

    def test_a_folder_is_what_has_no_ending(self, tmp_path):
        found = embed(Counting(), make_rows(), out=tmp_path / "new", progress=False)
        assert len(found.features.files) == 1  # of up to about 100 000 rows
        assert found.features.id_columns == ("id",)
        assert found.features.ids([5, 3]) == [5, 3]
        (tmp_path / "vit-b.16").mkdir()
        for name, more in (("vit-b.16", {}), ("vit-l.14", {"shard_rows": 9}), ("a.npy", {"shard_rows": None})):
            found = embed(Counting(), make_rows(), out=tmp_path / name, progress=False, **more)
            assert (tmp_path / name).is_dir() == (name != "a.npy")
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="is a file"):
            embed(Counting(), make_rows(), out=tmp_path / "file", progress=False)
        with pytest.raises(ConfigError, match=r"shard_rows is for a folder of shards; out is one file, b\.npy"):
            embed(Counting(), make_rows(), out=tmp_path / "b.npy", shard_rows=9, progress=False)
        with pytest.raises(ConfigError, match="shard_rows must be a whole number of at least 1, got 0"):
            run(tmp_path / "c", shard_rows=0)
        with pytest.raises(ConfigError, match=r"group must be a process group of torch\.distributed, got str"):
            run(tmp_path / "c", group="gloo")
        assert not (tmp_path / "c").exists()

    @pytest.mark.parametrize(
        "data",
        [
            lambda rows: rows.numpy(),
            lambda rows: rows.numpy().astype(">f4"),
            TensorDataset,
            lambda rows: DataLoader(TensorDataset(rows), batch_size=2),
        ],
    )
    def test_data_that_has_rows_by_number(self, data, tmp_path, undisturbed):
        run(tmp_path / "shards", data=data(make_rows()))
        found = contents(tmp_path / "shards")
        for name in NAMES[1:]:
            assert found[name] == undisturbed[name]

    def test_a_mapped_file_and_workers(self, tmp_path, undisturbed):
        np.save(tmp_path / "rows.npy", make_rows().numpy())
        run(tmp_path / "a", data=np.load(tmp_path / "rows.npy", mmap_mode="r"))
        run(tmp_path / "b", data=TensorDataset(make_rows()), num_workers=1, shard_rows=24)
        assert contents(tmp_path / "a")["img_emb/img_emb_4.npy"] == undisturbed["img_emb/img_emb_4.npy"]
        whole = b"".join(undisturbed[f"img_emb/img_emb_{i}.npy"][128:] for i in range(3))
        assert contents(tmp_path / "b")["img_emb/img_emb_0.npy"][128:] == whole

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (lambda rows: rows.split(2), "an iterable of batches (tuple) is read from its beginning to its end"),
            (lambda rows: iter(rows.split(2)), "give a tensor, an array, a Dataset with a length or a DataLoader"),
            (lambda rows: DataLoader(rows.split(2), batch_size=None), "a DataLoader of tuple with batch_size=None"),
        ],
    )
    def test_a_stream_cannot_be_cut(self, data, what, tmp_path):
        with pytest.raises(DataError) as caught:
            run(tmp_path / "shards", data=data(make_rows()))
        assert what in str(caught.value)
        assert not (tmp_path / "shards").exists()

    def test_ids(self, tmp_path):
        found = run(tmp_path / "a", ids={"image_path": IDS, "caption": np.array(IDS), "n": torch.arange(N)}).features
        assert found.id_columns == ("image_path", "caption", "n")
        assert found.ids([40], "n") == [40]
        assert found.ids([], "n") == []
        with pytest.raises(ConfigError, match="column must be one of 'image_path', 'caption', 'n'"):
            found.ids([0])
        with pytest.raises(ConfigError, match=r"a is of something else: ids was '\w+', is '\w+'\. Choose another out"):
            run(tmp_path / "a")
        found = run(tmp_path / "b", ids={"a": [None] * N, "b": [None, "x"] * 23 + [None]}).features
        assert found.ids([0, 1], "b") == [None, "x"]
        for ids, error, match in [
            (IDS[1:], ShapeError, "ids, column 'id': must be 47 for 47 rows, got 46"),
            ({"x": make_rows()}, ShapeError, r"ids, column 'x': must have shape \(47,\), got \(47, 4\)"),
            ("a" * N, ShapeError, "must be a list or an array of 47, got str"),
            (iter(IDS), ShapeError, "must be a list or an array of 47, got list_iterator"),
            ({}, ConfigError, "ids must be a column, or columns by their names"),
            ({3: IDS}, ConfigError, "by their names"),
            ([*IDS[:-1], 3], DataError, "ids, column 'id': the values of rows 0 to 46 are of no one kind"),
        ]:
            with pytest.raises(error, match=match):
                run(tmp_path / "c", ids=ids)
        assert not (tmp_path / "c").exists()

    def test_ids_of_pandas_are_taken_in_their_order(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        found = run(tmp_path / "a", ids=pandas.Series(IDS, index=range(N, 0, -1))).features
        assert found.ids([3, 46]) == ["row 3", "row 46"]

    def test_a_value_of_another_kind_far_behind(self, tmp_path, monkeypatch):
        monkeypatch.setattr(id_columns, "ROWS_PER_GROUP", 4)
        with pytest.raises(DataError, match="column 'id': the values of rows 44 to 46 are of no one kind that"):
            run(tmp_path / "a", ids=[*range(46), "x"])

    @pytest.mark.parametrize("part", ["img_emb", "logits", "metadata", "unfinished"])
    def test_folders_of_others_are_left_alone(self, part, tmp_path):
        (tmp_path / part).mkdir()
        with pytest.raises(ConfigError, match=f"holds {part} already, without embed.json: choose another out"):
            run(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [part]

    def test_a_damaged_manifest(self, tmp_path):
        run(tmp_path / "a")
        for content in ("[]", "{", '{"fingerprint": {}}'):
            (tmp_path / "a" / "embed.json").write_text(content)
            with pytest.raises(RunError, match=r"embed\.json is damaged"):
                run(tmp_path / "a")

    def test_two_jobs(self, tmp_path):
        folder = tmp_path / "a"
        folder.mkdir()
        lock = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True)"
        command = [sys.executable, "-c", f"{lock}; input()", str(folder / "embed.lock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            with pytest.raises(RunError, match="a is being written by another job; processes that share one need"):
                run(folder)
            process.kill()
        run(folder)

    def test_shards_of_several_widths(self, tmp_path):
        module = Counting()
        module.register_forward_hook(lambda _, inputs, y: y[:, : 2 + int(inputs[0][0, 0] < 1000)])
        rows = make_rows()
        rows[16:24] += 1e6
        with pytest.raises(DataError, match=r"logits_2\.npy has shape \(8, 2\), expected \(8, 3\) as the first"):
            run(tmp_path / "a", module, data=rows, layer="net.1")
        with pytest.raises(DataError, match="is not finished"):
            open_shards(tmp_path / "a")

    def test_errors_tell_shard_and_row(self, tmp_path):
        rows = make_rows()
        rows[30] = torch.nan
        expected = r"features must be finite: 1 of 2 rows of batch 3 of shard 3 are not, the first is row 30"
        with pytest.raises(DataError, match=expected):
            run(tmp_path / "a", data=rows)

    def test_progress(self, tmp_path, capsys):
        module = Counting(fails_at=7)
        with pytest.raises(RuntimeError, match="the pass failed"):
            run(tmp_path / "shards", module)
        module.fails_at = None
        run(tmp_path / "shards", module, progress=True)
        bar = capsys.readouterr().err.split("\r")
        assert "14/47" in bar[1]
        assert "47/47" in bar[-1]

    @pytest.mark.gpu
    @pytest.mark.parametrize("data", [lambda rows: rows, lambda rows: rows.cuda(), TensorDataset])
    def test_on_a_device(self, data, tmp_path):
        found = run(tmp_path / "shards", Counting().cuda(), data(make_rows()))
        expected = embed(Counting().cuda(), make_rows(), batch_size=2, progress=False)
        assert expected.features.is_cuda
        assert np.array_equal(np.concatenate(found.features.arrays), expected.features.cpu())
        assert np.array_equal(np.concatenate(found.logits.arrays), expected.logits.cpu())


class TestResume:
    def test_after_a_kill_at_any_line(self, tmp_path, undisturbed):
        passes = forks.answer(run_and_be_killed_at_lines, tmp_path)
        assert len(passes) > 12
        assert passes[0] == 24
        assert passes[-1] == 0
        assert passes == sorted(passes, reverse=True)
        for folder in tmp_path.iterdir():
            assert contents(folder) == undisturbed

    def test_a_full_disk(self, tmp_path, undisturbed):
        error = forks.answer(run_on_a_full_disk, tmp_path / "a")
        assert error.startswith("RunError: ")
        assert "cannot be written: [Errno 27] File too large" in error
        with pytest.raises(DataError, match=r"is not finished: shards are still made, or torchal\.embed was stopped"):
            open_shards(tmp_path / "a")
        run(tmp_path / "a")
        assert contents(tmp_path / "a") == undisturbed


class TestGroup:
    @pytest.mark.parametrize("size", [1, 2, 3, 8])
    def test_any_number_of_processes_writes_the_same_bytes(self, size, tmp_path, undisturbed):
        passes = in_ranks(size, tmp_path / "room", program.in_a_group, tmp_path / "shards", {})
        assert sum(map(int, passes)) == 24
        assert contents(tmp_path / "shards") == undisturbed
        if size < 8:  # than which there are fewer shards
            assert min(map(int, passes)) >= 24 // 6 * (6 // size) - 1
        again = in_ranks(2, tmp_path / "room", program.in_a_group, tmp_path / "shards", {"shard_rows": None})
        assert again == ["0", "0"]

    def test_torchrun_that_was_killed_goes_on_with_another_number(self, tmp_path, undisturbed):
        folder = tmp_path / "shards"
        done = torchrun(3, folder, "3")
        assert done.returncode != 0
        with pytest.raises(DataError, match="is not finished"):
            open_shards(folder)
        n_before = len(list((folder / "unfinished").rglob("img_emb_?.npy*")))
        assert n_before
        done = torchrun(2, folder)
        assert done.returncode == 0, done.stderr
        n_passes = sum(int((tmp_path / f"shards.rank{rank}").read_text()) for rank in range(2))
        assert n_passes <= 24 - 3
        found = contents(folder)
        assert list(found) == NAMES
        for name in NAMES[1:]:
            assert found[name] == undisturbed[name]

    def test_after_any_kills_of_any_number_of_ranks(self, tmp_path, undisturbed):
        folder, room = tmp_path / "shards", tmp_path / "room"
        for size, who, n_passes in ((3, 0, 1), (4, 2, 2), (2, 1, 0), (1, 0, 2), (3, 1, 0)):
            told = in_ranks(size, room, program.killed_in_one, folder, who, n_passes)
            assert told[who] is None
            assert not (folder / "img_emb").exists()
        passes = in_ranks(4, room, program.in_a_group, folder, {})
        assert 0 < sum(map(int, passes)) <= 24 - 9  # what was made before a rank died is not made again
        assert contents(folder) == undisturbed

    def test_a_rank_that_is_killed_stops_all(self, tmp_path, undisturbed):
        told = in_ranks(3, tmp_path / "room", program.killed_in_one, tmp_path / "shards", 2, 3)
        assert told[2] is None
        for error in told[:2]:
            assert error.startswith("GroupError: rank ")
            assert "of 3 lost the others: one of them ended" in error
        assert not (tmp_path / "shards" / "img_emb").exists()
        passes = in_ranks(2, tmp_path / "room", program.in_a_group, tmp_path / "shards", {})
        assert sum(map(int, passes)) < 24 - 3
        assert contents(tmp_path / "shards") == undisturbed

    @pytest.mark.parametrize("who", [0, 1])
    def test_a_full_disk_in_one_stops_all(self, who, tmp_path, undisturbed):
        told = in_ranks(2, tmp_path / "room", program.on_a_full_disk_in_one, tmp_path / "shards", who)
        assert all("cannot be written: [Errno 27] File too large" in error for error in told)
        assert told[who].startswith("RunError: ")
        assert f"GroupError: rank {who} failed with RunError: {tmp_path}" in told[1 - who]
        assert not (tmp_path / "shards" / "img_emb").exists()
        passes = in_ranks(3, tmp_path / "room", program.in_a_group, tmp_path / "shards", {})
        assert sum(map(int, passes)) < 24
        assert contents(tmp_path / "shards") == undisturbed

    def test_rows_that_are_not_finite_in_one_stop_all(self, tmp_path):
        told = in_ranks(2, tmp_path / "room", program.unreadable_in_one, tmp_path / "shards", 1)
        what = "features must be finite: 1 of 2 rows of batch 3 of shard 3 are not, the first is row 30"
        assert told[1] == f"DataError: {what}"
        assert told[0] == f"GroupError: rank 1 failed with DataError: {what}"

    def test_ranks_that_embed_different_things(self, tmp_path):
        told = in_ranks(2, tmp_path / "room", program.with_other_weights_in_one, tmp_path / "shards", 1)
        for error in told:
            assert error.startswith("ConfigError: all ranks must embed the same: from rank 0 to rank 1, module was ")
        assert not (tmp_path / "shards").exists()

    def test_a_folder_of_something_else_is_refused_by_all(self, tmp_path):
        run(tmp_path / "shards", ids=None)
        told = in_ranks(2, tmp_path / "room", program.in_a_group, tmp_path / "shards", {"shard_rows": 9})
        assert told[0].startswith("ConfigError: ")
        assert told[1].startswith("GroupError: rank 0 failed with ConfigError: ")
        for error in told:
            assert "shards is of something else: ids was " in error
            assert "shard_rows was 8, is 9" in error

    def test_a_stream_is_refused_by_all(self, tmp_path):
        told = in_ranks(2, tmp_path / "room", program.from_a_stream, tmp_path / "shards")
        assert all(error.startswith("DataError: an iterable of batches") for error in told)

    @pytest.mark.gpu
    def test_ranks_that_compute_on_a_device(self, tmp_path):
        run(tmp_path / "one", Counting().cuda())
        assert in_ranks(2, tmp_path / "room", program.on_a_device, tmp_path / "two") == ["None", "None"]
        assert contents(tmp_path / "two") == contents(tmp_path / "one")


def torchrun(n_processes, folder, *more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
    command += ["-m", "tests.embedding.sharded_program", str(folder), *more]
    settings = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False, timeout=120)


def run_on_a_full_disk(folder):
    try:
        program.on_a_full_disk(folder)
    except RunError as error:
        return f"RunError: {error}"
    return "no error"


def run_and_be_killed(folder, line):
    """Embed in a process that is killed before the n-th line that the writers execute; tell whether it came so far."""
    process = os.fork()
    if process:
        return os.WIFSIGNALED(os.waitpid(process, 0)[1])
    n_lines = 0
    watched = {one.__file__ for one in (npy_stream, id_columns, shard_folder, sharded)}

    def trace(frame, event, _):
        nonlocal n_lines
        if frame.f_code.co_filename not in watched:
            return None
        n_lines += event == "line"
        if n_lines > line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sharded._SHOWN_SECONDS = np.inf  # else how many lines there are would hang on time
    sys.settrace(trace)
    run(folder)
    os._exit(0)


def run_and_be_killed_at_lines(folder):
    """Return how many passes it took to go on, for each line."""
    passes, run_on, lines = [], True, itertools.count(step=97)
    while run_on:
        line = next(lines)
        place = folder / str(line)
        run_on = run_and_be_killed(place, line)
        if run_on:
            finished = (place / "img_emb").exists()
            try:
                assert open_shards(place).n_rows == N
                assert finished
            except DataError:
                assert not finished
        module = Counting()
        run(place, module)
        passes.append(module.n_passes)
    return passes
