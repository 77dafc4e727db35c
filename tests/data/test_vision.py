"""Fashion-MNIST and MNIST: the real files where they are there, and small ones of the same form, good and bad."""

import gzip
import hashlib
import importlib.util
import os
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from torchal.data import fashion_mnist, mnist
from torchal.errors import ConfigError, DataError, MissingExtraError, ShapeError

ROOT = Path(__file__).parents[2]
REAL_DATA = ROOT / os.environ.get("TORCHAL_DATA", "../shared/data")
SOURCES = {"fashion_mnist": (fashion_mnist, "FashionMNIST"), "mnist": (mnist, "MNIST")}
PARTS = ("train", "validation", "test")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
N_TRAIN, N_TEST = 60, 30
N = N_TRAIN + N_TEST
LABELS = np.arange(N, dtype=np.uint8) * 3 % 10
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 28, 28), dtype=np.uint8)
IMAGES[:, 0, 0] = 51
IMAGES[N_TRAIN:, 0, 0] = 102  # constant in the training part only
IMAGES[:, 0, 1] = np.arange(N)  # so that a row is known by its image


def idx(array, *, magic=None, shape=None):
    words = [magic or 0x800 + array.ndim, *(shape or array.shape)]
    return np.array(words, ">u4").tobytes() + array.tobytes()


def contents(**changed):
    parts = {"train": slice(N_TRAIN), "t10k": slice(N_TRAIN, N)}
    files = {}
    for name, rows in parts.items():
        files[f"{name}-images-idx3-ubyte"] = idx(IMAGES[rows])
        files[f"{name}-labels-idx1-ubyte"] = idx(LABELS[rows])
    return files | changed


def write(folder, files=None, *, compress=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files or contents()).items():
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content, 1) if compress else content)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write(tmp_path_factory.mktemp("small"))


def rows_of(data):
    return [getattr(data, f"{part}_rows").tolist() for part in PARTS]


def real(name):
    path = REAL_DATA / name
    if not (path / f"{TRAIN_IMAGES}.gz").exists():
        pytest.skip(f"{name} is not in {REAL_DATA}: set TORCHAL_DATA to the folder with the data sets")
    return path


@pytest.fixture(scope="module")
def clothes():
    return fashion_mnist(real("fashion-mnist"))


class TestRealFiles:
    def test_every_image_is_in_its_official_part(self, clothes):
        assert [len(rows) for rows in rows_of(clothes)] == [48_000, 12_000, 10_000]
        assert sorted(chain(*rows_of(clothes)[:2])) == list(range(60_000))
        assert clothes.test_rows.tolist() == list(range(60_000, 70_000))
        for part in PARTS:
            inputs, targets = getattr(clothes, part)
            assert inputs.shape == (len(targets), 1, 28, 28)
            assert inputs.dtype == torch.float32
            assert inputs.is_contiguous()
            assert (float(inputs.min()), float(inputs.max())) == (0, 1)
        assert (clothes.name, clothes.n_classes) == ("fashion_mnist", 10)

    def test_classes_are_balanced_and_named(self, clothes):
        used = torch.cat([clothes.train.targets, clothes.validation.targets])
        assert used.bincount().tolist() == [6000] * 10
        assert clothes.test.targets.bincount().tolist() == [1000] * 10
        first = [clothes.class_names[label] for label in clothes.test.targets[:5]]
        assert first == ["Ankle boot", "Pullover", "Trouser", "Trouser", "Shirt"]

    def test_the_test_images_are_byte_for_byte_the_published_ones(self, clothes):
        pixels = (clothes.test.inputs * 255).round().to(torch.uint8)
        assert torch.equal(clothes.test.inputs, pixels / 255)
        digest = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        assert digest == "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"

    def test_the_training_images_keep_their_labels(self, clothes):
        content = gzip.decompress((real("fashion-mnist") / f"{TRAIN_LABELS}.gz").read_bytes())
        assert clothes.train.targets.tolist() == np.frombuffer(content[8:], np.uint8)[clothes.train_rows].tolist()

    def test_a_small_part_of_it_needs_little_memory(self):
        path = real("fashion-mnist")
        tracemalloc.start()
        data = fashion_mnist(path, max_rows=600, test_limit=200)
        peak_mib = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        assert [len(rows) for rows in rows_of(data)] == [480, 120, 200]
        assert peak_mib < 180  # 140; all 70 000 images are 52 as bytes and 209 as float32

    def test_mnist(self):
        data = mnist(real("mnist"), max_rows=2000, test_limit=500)
        assert data.test.inputs.shape == (500, 1, 28, 28)
        assert data.class_names == tuple("0123456789")
        first = mnist(real("mnist"), train_rows=range(5), validation_rows=[], test_rows=range(60_000, 60_005))
        assert first.train.targets.tolist() == [5, 0, 4, 1, 9]
        assert first.test.targets.tolist() == [7, 2, 1, 0, 4]


class TestSplits:
    def test_each_row_has_its_own_image_and_label(self, small):
        data = fashion_mnist(small)
        assert [len(rows) for rows in rows_of(data)] == [48, 12, 30]
        assert sorted(chain(*rows_of(data))) == list(range(N))
        for part in PARTS:
            rows = getattr(data, f"{part}_rows")
            assert torch.equal(getattr(data, part).inputs, torch.from_numpy(IMAGES[rows])[:, None] / 255)
            assert getattr(data, part).targets.tolist() == LABELS[rows].tolist()

    @pytest.mark.parametrize(
        ("fractions", "sizes"),
        [((0.5, 0.25, 0.25), [40, 20, 30]), ((0.75, 0.25, 0), [45, 15, 30]), ((0.9, 0, 0.1), [60, 0, 30])],
    )
    def test_fractions_are_about_the_official_training_images(self, small, fractions, sizes):
        data = fashion_mnist(small, fractions=fractions)
        assert [len(rows) for rows in rows_of(data)] == sizes
        assert data.test_rows.tolist() == list(range(N_TRAIN, N))

    def test_max_rows_leaves_the_test_part_whole(self, small):
        data = fashion_mnist(small, max_rows=20)
        assert [len(rows) for rows in rows_of(data)] == [16, 4, 30]
        assert max(chain(*rows_of(data)[:2])) < N_TRAIN
        assert len(fashion_mnist(small, max_rows=1000).train_rows) == 48

    def test_test_limit_draws_by_the_seed_after_keep(self, small):
        first, again, other = (fashion_mnist(small, test_limit=7, seed=seed) for seed in (1, 1, 2))
        assert rows_of(first) == rows_of(again)
        assert rows_of(first)[2] != rows_of(other)[2]
        assert len(first.test_rows) == len(first.test_rows.unique()) == 7
        assert int(first.test_rows.min()) >= N_TRAIN
        assert len(fashion_mnist(small, test_limit=1000).test_rows) == N_TEST
        kept = fashion_mnist(small, test_limit=5, keep=["Trouser", 9])
        assert kept.class_names == ("Trouser", "Ankle boot")
        assert len(kept.test_rows) == 5
        assert set(LABELS[kept.test_rows]) <= {1, 9}

    def test_the_seed_decides_the_training_part(self, small):
        first, again, other = (rows_of(fashion_mnist(small, seed=seed)) for seed in (3, 3, 4))
        assert first == again
        assert first[0] != other[0]

    def test_without_the_official_test_all_rows_are_split_alike(self, small):
        data = fashion_mnist(small, official_test=False)
        assert [len(rows) for rows in rows_of(data)] == [60, 15, 15]
        assert sorted(chain(*rows_of(data))) == list(range(N))
        assert data.test_rows.tolist() != list(range(75, N))
        limited = fashion_mnist(small, official_test=False, max_rows=30)
        assert [len(rows) for rows in rows_of(limited)] == [20, 5, 5]

    @pytest.mark.parametrize("official_test", [True, False])
    def test_explicit_rows_are_source_rows(self, small, official_test):
        given = {"train_rows": [70, 3, 61], "validation_rows": [], "test_rows": torch.tensor([0, 89])}
        data = fashion_mnist(small, official_test=official_test, **given)
        assert rows_of(data) == [[70, 3, 61], [], [0, 89]]
        assert data.train.inputs[:, 0, 0, 1].mul(255).round().tolist() == [70, 3, 61]

    @pytest.mark.parametrize(
        "settings", [{"normalize": True}, {"standardize": True}, {"normalize": True, "standardize": True}]
    )
    def test_scaling_is_as_if_pixels_were_divided_first(self, small, settings):
        data = fashion_mnist(small, **settings)
        rows = [IMAGES[part].reshape(len(part), -1) / 255 for part in rows_of(data)]
        if "normalize" in settings:
            rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in rows]
        if "standardize" in settings:
            mean, scale = rows[0].mean(0), rows[0].std(0)
            scale[scale < 1e-12] = 1
            rows = [(part - mean) / scale for part in rows]
        for part, expected in zip(PARTS, rows, strict=True):
            assert_close(
                getattr(data, part).inputs.flatten(1), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5
            )

    def test_a_class_that_is_in_neither_part_is_not_named(self, tmp_path):
        few = contents(**{TRAIN_LABELS: idx(LABELS[:N_TRAIN] % 8), TEST_LABELS: idx(LABELS[N_TRAIN:] % 4)})
        data = mnist(write(tmp_path, few), test_limit=10)
        assert data.class_names == tuple("01234567")
        assert len(data.test_rows) == 10

    @pytest.mark.parametrize(
        ("settings", "error", "words"),
        [
            ({"kep": [1]}, ConfigError, ["'kep'", "download, official_test, test_limit, seed"]),
            ({"download": "no"}, ConfigError, ["download", "'no'"]),
            ({"official_test": 1}, ConfigError, ["official_test", "1"]),
            ({"test_limit": 0}, ConfigError, ["test_limit", "0"]),
            ({"test_limit": 5, "official_test": False}, ConfigError, ["test_limit=5", "official_test"]),
            (
                {"test_limit": 5, "train_rows": [0], "validation_rows": [1], "test_rows": [2]},
                ConfigError,
                ["test_limit=5", "explicit rows"],
            ),
            (
                {"max_rows": 5, "train_rows": [0], "validation_rows": [1], "test_rows": [2]},
                ConfigError,
                ["max_rows=5", "explicit rows"],
            ),
            ({"train_rows": [0]}, ConfigError, ["validation_rows, test_rows"]),
            ({"train_rows": [0], "validation_rows": [1], "test_rows": [90]}, ShapeError, ["[0, 90)", "90"]),
            ({"fractions": (0.5, 0.5)}, ConfigError, ["three", "[0.5, 0.5]"]),
            ({"fractions": (0.5, 0.2, 0.2)}, ConfigError, ["sum to 1", "[0.5, 0.2, 0.2]"]),
            ({"fractions": (0.6, 0.6, -0.2)}, ConfigError, ["at least 0", "-0.2"]),
            ({"fractions": (float("nan"), 0.5, 0.5)}, ConfigError, ["nan"]),
            ({"fractions": (0, 0.5, 0.5)}, ConfigError, ["for training", "[0, 0.5, 0.5]"]),
            ({"fractions": (0, 0, 1)}, ConfigError, ["for training", "[0, 0, 1]"]),
            ({"max_rows": 0}, ConfigError, ["max_rows", "0"]),
            ({"max_rows": 2}, DataError, ["2 rows", "validation"]),
            ({"keep": ["Coat"]}, ConfigError, ["keep", "two classes"]),
            ({"keep": ["Hat", "Coat"]}, ConfigError, ["Hat", "Ankle boot"]),
            ({"seed": -1}, ConfigError, ["seed", "-1"]),
            ({"standardize": "no"}, ConfigError, ["standardize", "'no'"]),
            ({"normalize": 1}, ConfigError, ["normalize", "1"]),
        ],
    )
    def test_an_impossible_setting_is_refused(self, small, settings, error, words):
        with pytest.raises(error) as caught:
            fashion_mnist(small, **settings)
        assert all(word in str(caught.value) for word in words), caught.value


class TestFiles:
    @pytest.mark.parametrize("name", SOURCES)
    @pytest.mark.parametrize("compress", [True, False])
    @pytest.mark.parametrize("below", [True, False])
    def test_both_layouts_plain_and_compressed(self, name, compress, below, tmp_path):
        load, torchvision = SOURCES[name]
        write(tmp_path / torchvision / "raw" if below else tmp_path, compress=compress)
        assert len(load(tmp_path).test.targets) == N_TEST

    def test_one_file_may_be_compressed_and_another_plain(self, tmp_path):
        files = contents()
        write(tmp_path, {TRAIN_IMAGES: files.pop(TRAIN_IMAGES)}, compress=True)
        assert len(mnist(str(write(tmp_path, files))).test.targets) == N_TEST

    def test_a_home_folder_may_be_a_tilde(self, small, monkeypatch):
        monkeypatch.setenv("HOME", str(small.parent))
        assert len(mnist(f"~/{small.name}").test.targets) == N_TEST

    def test_a_whole_folder_comes_before_one_with_gaps(self, tmp_path):
        write(tmp_path, {TRAIN_LABELS: b"damaged"})
        write(tmp_path / "MNIST" / "raw")
        assert len(mnist(tmp_path).test.targets) == N_TEST

    def test_a_missing_folder_says_how_to_get_it(self, tmp_path):
        with pytest.raises(
            DataError, match=r"no folder .*none; download=True has torchvision fetch Fashion-MNIST into"
        ):
            fashion_mnist(tmp_path / "none")

    def test_missing_files_are_named_and_counted(self, tmp_path):
        files = contents()
        del files[TRAIN_LABELS], files[TEST_IMAGES]
        with pytest.raises(DataError) as caught:
            mnist(write(tmp_path, files))
        words = [str(tmp_path), "MNIST/raw", "2 are there", f"not {TRAIN_LABELS}, {TEST_IMAGES};", "download=True"]
        assert all(word in str(caught.value) for word in words), caught.value

    @pytest.mark.parametrize("compress", [True, False])
    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            (TRAIN_IMAGES, idx(IMAGES[:N_TRAIN])[:-9], ["60 x 28 x 28 = 47040", "47031 are there"]),
            (TRAIN_IMAGES, idx(IMAGES[:N_TRAIN], magic=0x801), ["0x00000803", "0x00000801"]),
            (TRAIN_IMAGES, idx(IMAGES[:N_TRAIN], shape=(120, 14, 28)), ["28 x 28", "14 x 28"]),
            (TRAIN_IMAGES, idx(IMAGES[:59]), ["59 images", "60 labels", TRAIN_LABELS]),
            (TRAIN_LABELS, idx(LABELS[:N_TRAIN], magic=0x803), ["0x00000801", "0x00000803"]),
            (TRAIN_LABELS, b"\0\0", ["within its header", "2 bytes", "8"]),
            (TEST_LABELS, idx(LABELS[N_TRAIN + 1 :]), ["30 images", "29 labels", TEST_IMAGES]),
            (
                TEST_LABELS,
                idx(np.where(np.arange(30) > 6, 10, LABELS[60:]).astype(np.uint8)),
                ["0 to 9", "label 7", "10"],
            ),
            (TEST_IMAGES, idx(IMAGES[:0]), ["empty", "0 x 28 x 28"]),
        ],
    )
    def test_a_bad_file_is_named(self, name, content, words, compress, tmp_path):
        with pytest.raises(DataError) as caught:
            mnist(write(tmp_path, contents(**{name: content}), compress=compress))
        assert all(word in str(caught.value) for word in [str(tmp_path / name), *words]), caught.value

    def test_a_damaged_archive_is_named(self, tmp_path):
        path = write(tmp_path, compress=True) / f"{TEST_IMAGES}.gz"
        content = path.read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 255
        for damaged in (content[:1000], bytes(changed)):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{path.name} is damaged: its {len(damaged)} bytes"):
                fashion_mnist(tmp_path)


class TestDownload:
    @pytest.fixture
    def calls(self, monkeypatch):
        """Put a class that writes the files in torchvision's layout in the place of those that fetch them."""
        from torchvision import datasets

        calls = []
        for _, name in SOURCES.values():

            def fake(root, *, train, download, name=name):
                calls.append((name, root, train, download))
                write(Path(root) / name / "raw")

            monkeypatch.setattr(datasets, name, fake)
        return calls

    @pytest.mark.parametrize("name", SOURCES)
    def test_torchvision_fetches_both_parts_once(self, name, calls, tmp_path):
        load, torchvision = SOURCES[name]
        folder = tmp_path / "new"
        for _ in range(2):
            assert len(load(folder, download=True).test.targets) == N_TEST
        assert calls == [(torchvision, folder, True, True), (torchvision, folder, False, True)]

    def test_files_that_are_there_are_not_fetched(self, calls, small):
        mnist(small, download=True)
        assert not calls

    def test_a_failure_is_told_in_one_line(self, monkeypatch, tmp_path):
        def fake(root, **_):
            raise RuntimeError("Error downloading a.gz:\nTried http://b, got:\nno route")

        monkeypatch.setattr("torchvision.datasets.MNIST", fake)
        with pytest.raises(
            DataError, match=r"MNIST cannot be downloaded into .*: Error downloading a.gz: Tried .* no route$"
        ):
            mnist(tmp_path, download=True)

    def test_without_torchvision_it_says_which_extra_brings_it(self, monkeypatch, tmp_path):
        find = importlib.util.find_spec
        absent = lambda name: None if name == "torchvision" else find(name)  # noqa: E731
        monkeypatch.setattr("torchal._checks.find_spec", absent)
        with pytest.raises(MissingExtraError, match=r"torchvision is not installed; pip install 'torchal\[vision\]'"):
            mnist(tmp_path, download=True)


@pytest.mark.parametrize("name", SOURCES)
def test_the_config_of_a_data_set_makes_it(name, monkeypatch, tmp_path):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    import experiments.folders  # noqa: F401 - by which the configs find the folder of data sets

    monkeypatch.setenv("TORCHAL_DATA", str(tmp_path))
    write(tmp_path / name.replace("_", "-"))
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        config = compose("config", [f"data={name}", "data.test_limit=12", "seed=4"])
    settings = {key: value for key, value in config.data.items() if key != "about"}
    data = instantiate(settings, _convert_="object")
    assert rows_of(data) == rows_of(SOURCES[name][0](tmp_path / name.replace("_", "-"), test_limit=12, seed=4))
    assert float(data.train.inputs.max()) == 1
