import multiprocessing
import random
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from torchal import ActiveLearner, LabeledData, Pool
from torchal.data import ImageFiles
from torchal.errors import DataError, ShapeError
from torchal.models import MLP, LogisticRegression, SmallCNN, TorchClassifier
from torchal.models.networks.loading import DeviceRows, LoadedRows
from torchal.pool.dataset_inputs import DatasetInputs
from torchal.runs import metrics
from torchal.samplers import KCenterGreedy, Margin

CPU = torch.device("cpu")
X = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0)


class Noisy(Dataset):
    """Augments by the generators that augmentation libraries draw from."""

    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        return X[row] + torch.randn(5) + random.random() + np.random.random()  # noqa: NPY002


class Broken(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, row):
        if row == 41:
            raise OSError("bad sector")
        return X[row]


class OtherShape(Broken):
    def __getitem__(self, row):
        return X[row, :4] if row == 41 else X[row]


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


def collect(feed, order, sizes, epoch=1):
    return torch.cat(list(feed.batches(order, sizes, epoch)))


class TestDeviceRows:
    @pytest.mark.parametrize("at_once", [1, 37, 10_000])
    def test_batches_are_the_rows_in_their_order(self, monkeypatch, at_once):
        monkeypatch.setattr("torchal.models.networks.loading._GATHERED_NUMBERS", at_once)
        order = torch.randperm(90)
        batches = list(DeviceRows(X, torch.float32).batches(order, [32, 32, 26], 1))
        assert [len(batch) for batch in batches] == [32, 32, 26]
        assert torch.cat(batches).equal(X[order])

    def test_small_numbers_stay_small(self):
        pixels = torch.randint(0, 256, (9, 3, 4, 4), dtype=torch.uint8)
        feed = DeviceRows(pixels, torch.float32, channels_last=True)
        assert feed._inputs.dtype == torch.uint8
        (batch,) = feed.batches(torch.arange(9), [9], 1)
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last)


class TestLoadedRows:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_batches_are_the_rows_in_their_order(self, mapped, workers):
        for inputs in (mapped, DatasetInputs(TensorDataset(X)), X):
            feed = LoadedRows(inputs, CPU, torch.float64, num_workers=workers, seed=3)
            for epoch in (1, 2):
                order = torch.randperm(90)
                assert collect(feed, order, [32, 32, 26], epoch).equal(X[order].double())
            assert collect(feed, None, [90]).equal(X.double())

    def test_augmentation_follows_from_seed_epoch_and_row_whatever_the_workers(self):
        def read(workers, seed=3, epoch=1, sizes=(30, 30, 30)):
            feed = LoadedRows(DatasetInputs(Noisy()), CPU, None, num_workers=workers, seed=seed)
            return collect(feed, torch.arange(90), list(sizes), epoch)

        first = read(0)
        assert read(2).equal(first)
        assert read(0, sizes=(45, 45)).equal(first)
        assert not read(0, epoch=2).isclose(first).any()
        assert not read(0, seed=4).isclose(first).any()

    def test_global_generators_stay(self):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        collect(LoadedRows(DatasetInputs(Noisy()), CPU, None, num_workers=0, seed=3), None, [90])
        assert torch.get_rng_state().equal(before[0])
        assert random.getstate() == before[1]
        assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


class TestClassifier:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_same_weights_and_answers_from_any_source(self, mapped, workers):
        model = TorchClassifier(epochs=3, num_workers=workers, device="cpu")
        expected = model.fit(X, Y)
        answers = {name: getattr(expected, name)(X) for name in ("predict", "predict_proba", "transform")}
        weights = weights_of(expected)
        for inputs in (mapped, TensorDataset(X, Y), DatasetInputs(TensorDataset(X))):
            model = TorchClassifier(epochs=3, num_workers=workers, device="cpu").fit(inputs, Y)
            assert weights_of(model).equal(weights)
            for name, answer in answers.items():
                got = getattr(model, name)(inputs)
                assert isinstance(got, np.ndarray if inputs is mapped else torch.Tensor)
                torch.testing.assert_close(torch.as_tensor(got), answer)
            assert model.score(inputs, Y) == expected.score(X, Y)

    def test_weights_drop_rows_unread(self):
        kept = torch.arange(90) != 41
        model = TorchClassifier(epochs=1, num_workers=0)
        model.fit(DatasetInputs(Broken()), Y, sample_weight=kept)
        assert weights_of(model).equal(weights_of(TorchClassifier(epochs=1).fit(X[kept], Y[kept])))

    def test_a_mapped_file_stays_unread_where_rows_are_left_out(self, mapped, monkeypatch):
        seen = []
        whole = LoadedRows.__init__
        monkeypatch.setattr(
            LoadedRows,
            "__init__",
            lambda self, inputs, *a, **k: (seen.append(type(inputs)), whole(self, inputs, *a, **k))[1],
        )
        model = TorchClassifier(epochs=1, validation_fraction=0.2, num_workers=0).fit(mapped, Y)
        assert seen == [DatasetInputs, DatasetInputs]
        expected = TorchClassifier(epochs=1, validation_fraction=0.2).fit(X, Y)
        assert weights_of(model).equal(weights_of(expected))

    def test_what_is_random_in_reading_is_none_of_the_fits(self, mapped):
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
        fits = []
        for workers in (0, 2):
            model = TorchClassifier(partial(MLP, dropout=0.5), epochs=2, num_workers=workers, device="cpu")
            fits.append(model.fit(Noisy(), Y, validation=(Noisy(), Y)))
            assert fits[-1].predict_proba(Noisy()).equal(fits[-1].predict_proba(Noisy()))
        assert weights_of(fits[0]).equal(weights_of(fits[1]))
        assert torch.get_rng_state().equal(before[0])
        assert random.getstate() == before[1]
        assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002

    def test_items_of_every_kind(self):
        kinds = [
            lambda row: row.clone().requires_grad_(),
            lambda row: row.numpy()[::-1][::-1],
            lambda row: row.numpy().astype(">f4"),
            lambda row: np.frombuffer(row.numpy().tobytes(), np.float32),
        ]
        expected = weights_of(TorchClassifier(epochs=1).fit(X, Y))
        for kind in kinds:
            items = DatasetInputs(list(X), to_row=kind)
            assert weights_of(TorchClassifier(epochs=1, num_workers=0).fit(items, Y)).equal(expected)

    def test_text_labels_of_a_data_set(self):
        names = np.array(["a", "b", "c"])
        model = TorchClassifier(epochs=1).fit(TensorDataset(X), names[Y])
        assert model.predict(TensorDataset(X)).dtype == names.dtype

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize(
        ("data", "error", "match"),
        [
            (Broken(), DataError, r"^row 41 of the data set \(Broken\) cannot be read: OSError: bad sector$"),
            (OtherShape(), ShapeError, r"row \d+ has \(.,\), row \d+ has \(.,\)"),
        ],
    )
    def test_a_row_that_cannot_be_read(self, workers, data, error, match):
        with pytest.raises(error, match=match):
            TorchClassifier(num_workers=workers).fit(data, Y)
        fitted = TorchClassifier(num_workers=workers, epochs=1).fit(X, Y)
        with pytest.raises(error, match=match):
            fitted.predict(data)
        assert not multiprocessing.active_children()  # the workers went with the error

    def test_values_that_are_not_finite_are_named(self, tmp_path):
        bad = X.clone()
        bad[77, 3] = torch.nan
        fitted = TorchClassifier(epochs=1).fit(X, Y)
        with pytest.raises(DataError, match="the first is row 77"):
            fitted.predict(TensorDataset(bad))
        with pytest.raises(DataError, match="the loss is nan in epoch 1 of 20, batch"):
            TorchClassifier().fit(TensorDataset(bad), Y)

    def test_other_lengths_and_shapes(self):
        with pytest.raises(ShapeError, match="X has 90 rows and y has 89"):
            TorchClassifier().fit(TensorDataset(X), Y[:89])
        with pytest.raises(ShapeError, match="X has 4 features"):
            TorchClassifier(epochs=1).fit(X, Y).predict(TensorDataset(X[:, :4]))

    def test_a_model_that_does_not_stream_loads_all(self, mapped):
        expected = LogisticRegression().fit(X, Y).coef_
        for inputs in (TensorDataset(X), mapped):
            np.testing.assert_array_equal(LogisticRegression().fit(inputs, Y).coef_, expected)

    @pytest.mark.gpu
    def test_inputs_that_do_not_fit_on_the_device_are_streamed(self, monkeypatch):
        whole = TorchClassifier(epochs=2, device="cuda").fit(X, Y)
        monkeypatch.setattr("torchal.models.base.exceeds_memory", lambda inputs, device: True)
        monkeypatch.setattr("torchal.models.networks.training.DeviceRows", lambda *a, **k: pytest.fail("was moved"))
        streamed = TorchClassifier(epochs=2, device="cuda").fit(X, Y)
        torch.testing.assert_close(weights_of(streamed), weights_of(whole))


class TestPool:
    @pytest.mark.parametrize("sampler", [Margin(), KCenterGreedy()])
    def test_the_same_picks_from_a_data_set(self, sampler):
        def picks(inputs):
            pool = Pool.unlabeled(inputs, n_classes=3)
            learner = ActiveLearner(TorchClassifier(epochs=2, device="cpu"), sampler, pool)
            learner.tell(torch.arange(20), Y[:20])
            return learner.ask(7)

        assert picks(TensorDataset(X)).equal(picks(X))

    @pytest.mark.gpu
    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of a fork beside CUDA's threads
    @pytest.mark.parametrize("sampler", [Margin(), KCenterGreedy()])
    @pytest.mark.parametrize("kind", ["tensor", "dataset", "dataset there", "workers", "mapped file"])
    def test_a_network_on_cuda_reads_the_pool_wherever_it_is(self, kind, sampler, tmp_path):
        def run(inputs, device, **settings):
            pool = Pool.unlabeled(inputs, n_classes=3)
            network = TorchClassifier(epochs=2, precision="fp64", device=device, **settings)
            parts = LabeledData(inputs, Y)
            learner = ActiveLearner(network, sampler, pool, validation=parts, test=parts, metrics=metrics.BY_NAME)
            learner.tell(torch.arange(20), Y[:20])
            asked = learner.ask(7)
            return asked.tolist(), learner.history[0].test

        rows = X.double()
        np.save(tmp_path / "rows.npy", rows.numpy())
        inputs = {
            "dataset": TensorDataset(rows),
            "workers": TensorDataset(rows),
            "dataset there": TensorDataset(rows.cuda()),
            "mapped file": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        }.get(kind, rows)
        found, scored = run(inputs, "cuda", num_workers=2 if kind == "workers" else 0)
        want, expected = run(rows, "cpu")
        assert found == want
        assert scored.keys() > metrics.BY_NAME.keys()
        assert scored == pytest.approx(expected, rel=1e-5)

    def test_a_scikit_learn_model_gets_arrays(self):
        from sklearn.naive_bayes import GaussianNB

        images = X.reshape(90, 1, 5)
        learner = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(TensorDataset(images), n_classes=3))
        learner.tell(torch.arange(20), Y[:20])
        whole = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(images, n_classes=3))
        whole.tell(torch.arange(20), Y[:20])
        assert learner.ask(5).equal(whole.ask(5))

    def test_images_of_a_network(self):
        images = torch.randn(60, 1, 6, 6)

        def net(n_classes):
            return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, n_classes))

        model = TorchClassifier(net, epochs=1, channels_last=True).fit(TensorDataset(images), torch.arange(60) % 3)
        assert model.transform(TensorDataset(images)).shape == (60, 64)


class TestImageFiles:
    """Images on disk, with transforms of torchvision and augmentation."""

    @pytest.fixture
    def paths(self, tmp_path):
        from torchvision.transforms.v2 import functional

        generator = torch.Generator().manual_seed(0)
        for i in range(24):
            pixels = torch.randint(0, 128, (3, 20 + i % 3, 24), generator=generator) + 127 * (i % 2)
            functional.to_pil_image(pixels.to(torch.uint8)).save(tmp_path / f"{i:02}.png")
        return sorted(tmp_path.glob("*.png"))

    def inputs(self, paths):
        from torchvision.transforms import v2

        to_float = [v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)]
        augment = v2.Compose([v2.RandomResizedCrop((16, 16), scale=(0.5, 1.0)), v2.RandomHorizontalFlip(), to_float[1]])
        plain = ImageFiles(paths, transform=v2.Compose(to_float))
        return DatasetInputs(plain, train=ImageFiles(paths, transform=augment))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_learns_and_selects(self, paths, workers):
        labels = torch.arange(24) % 2
        model = TorchClassifier(SmallCNN, epochs=12, num_workers=workers, batch_size=8, device="cpu")
        inputs = self.inputs(paths)
        learner = ActiveLearner(model, KCenterGreedy(), Pool.unlabeled(inputs, n_classes=2))
        learner.tell(torch.arange(12), labels[:12])
        assert len(learner.ask(3)) == 3
        assert learner.model.score(inputs, labels) > 0.9
        plain = clone(model).fit(inputs.dataset, labels)
        assert not weights_of(clone(model).fit(inputs, labels)).isclose(weights_of(plain)).all()  # it was augmented

    def test_a_corrupt_file_is_named(self, paths):
        paths[5].write_bytes(paths[5].read_bytes()[:100])
        with pytest.raises(DataError, match=r"row 5 of the data set .*05\.png"):
            TorchClassifier(SmallCNN, epochs=1).fit(self.inputs(paths), torch.arange(24) % 2)
