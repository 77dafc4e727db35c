import random
from collections import UserDict

import numpy as np
import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from tests.token_nets import Texts, TokenNet, pad
from torchal import ActiveLearner, DatasetInputs, Pool, embed
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.models import Committee, LogisticRegression
from torchal.pool.dataset_inputs import is_dataset
from torchal.pool.inputs import as_inputs, have_distances, is_streamed
from torchal.samplers import Margin

ROWS = torch.arange(12.0).reshape(4, 3)


class Plain(Dataset):
    """Items that are what a test says."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        item = self.items[row]
        if isinstance(item, Exception):
            raise item
        return item


class Stream(IterableDataset):
    def __iter__(self):
        return iter(ROWS)


class TestDatasetInputs:
    def test_reads_nothing_before_it_is_needed(self):
        inputs = DatasetInputs(Plain([OSError("read")] * 4))
        assert len(inputs) == 4
        assert len(inputs[torch.tensor([3, 1])][torch.tensor([0])]) == 1

    @pytest.mark.parametrize("rows", [torch.tensor([2, 0]), np.array([2, 0]), [2, 0]])
    def test_rows_of_rows(self, rows):
        some = DatasetInputs(TensorDataset(ROWS, torch.zeros(4)))[rows]
        assert some.load().equal(ROWS[[2, 0]])
        assert some[torch.tensor([1])].load().equal(ROWS[:1])
        assert some[1:].load().equal(ROWS[:1])

    def test_training_reads_the_other_data_set(self):
        inputs = DatasetInputs(TensorDataset(ROWS), train=TensorDataset(-ROWS))[torch.tensor([3])]
        assert inputs.read([0]).equal(ROWS[3:])
        assert inputs.read([0], training=True).equal(-ROWS[3:])

    def test_items_of_other_kinds(self):
        assert DatasetInputs(Plain([{"x": row} for row in ROWS]), to_row=lambda item: item["x"]).load().equal(ROWS)
        assert DatasetInputs(Plain([(row.numpy(), 7) for row in ROWS])).load().equal(ROWS)
        with pytest.raises(DataError, match=r"row 0 of the data set \(Plain\) cannot be read: .*got str; give to_row="):
            DatasetInputs(Plain(["x"])).load()
        with pytest.raises(DataError, match="to_row must return a tensor or an array, or a mapping of them, got str"):
            DatasetInputs(Plain([{"x": "y"}]), to_row=lambda item: item["x"]).load()

    def test_an_item_that_cannot_be_read_is_named(self):
        items = [ROWS[0], ROWS[1], OSError("disk on fire")]
        with pytest.raises(DataError, match=r"row 2 of the data set .* cannot be read: OSError: disk on fire"):
            DatasetInputs(Plain(items))[torch.tensor([0, 2])].load()

    def test_rows_of_several_shapes(self):
        with pytest.raises(ShapeError, match=r"row 0 has \(3,\), row 1 has \(2,\)"):
            DatasetInputs(Plain([ROWS[0], ROWS[0, :2]])).load()

    @pytest.mark.parametrize(
        ("dataset", "train", "match"),
        [
            (Stream(), None, "Stream has not both"),
            (Plain([]), None, "no rows"),
            (Plain([1, 2]), Plain([1]), "1 and 2"),
        ],
    )
    def test_data_sets_that_cannot_be_used(self, dataset, train, match):
        with pytest.raises(DataError, match=match):
            DatasetInputs(dataset, train=train)


def test_a_pool_takes_a_data_set():
    pool = Pool.unlabeled(TensorDataset(ROWS), n_classes=2).with_labels(torch.tensor([3, 0]), torch.tensor([1, 0]))
    inputs, targets = pool.training_data()
    assert isinstance(inputs, DatasetInputs)
    assert inputs.load().equal(ROWS[[0, 3]])
    assert targets.tolist() == [0, 1]


def test_embed_takes_data_set_inputs():
    net = torch.nn.Linear(3, 2)
    features, logits = embed(net, DatasetInputs(TensorDataset(ROWS))[torch.tensor([3, 1])], progress=False)
    assert features.equal(ROWS[[3, 1]])
    torch.testing.assert_close(logits, net(ROWS[[3, 1]]).detach())


def read(*items, **settings):
    return DatasetInputs(Plain(list(items)), **settings).read(list(range(len(items)))).tensors


class TestMappings:
    @pytest.mark.parametrize(
        "value",
        [[1, 2], (1, 2), np.array([1, 2]), np.array([1, 2], ">i8"), torch.tensor([1, 2])],
    )
    def test_numbers_of_every_kind_are_stacked_by_name(self, value):
        found = read({"ids": value, "scale": 0.5}, {"ids": [3, 4], "scale": np.float32(2.0)})
        assert list(found) == ["ids", "scale"]
        assert found["ids"].equal(torch.tensor([[1, 2], [3, 4]]))
        assert found["scale"].tolist() == [0.5, 2.0]

    def test_kinds_of_mappings_and_of_items(self):
        mapping = UserDict(ids=[1, 2], label=3)
        for item in (mapping, (mapping, 7), [mapping, 7]):
            found = read(item)
            assert list(found) == ["ids"]
            assert found["ids"].tolist() == [[1, 2]]
        found = read("2 1", to_row=lambda text: {"ids": [int(word) for word in text.split()]})
        assert found["ids"].tolist() == [[2, 1]]

    def test_labels_are_never_read(self):
        class NoLabels(UserDict):
            def __getitem__(self, name):
                assert name not in ("label", "labels")
                return super().__getitem__(name)

        seen = []

        def collate(items):
            seen.extend(name for item in items for name in item)
            return {"ids": torch.zeros(len(items), 1), "labels": torch.ones(len(items))}

        item = NoLabels(ids=[1], label=0, labels=1)
        assert list(read(item)) == ["ids"]
        assert list(read(item, collate=collate)) == ["ids"]
        assert seen == ["ids"]

    def test_collate_pads(self):
        found = read({"input_ids": [5, 6, 7], "label": 1}, {"input_ids": [8]}, collate=pad)
        assert found["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
        assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]

    def test_collate_gets_items_as_they_are(self):
        def tokenize(items):
            assert items == [{"text": "a b"}, {"text": "c d"}]
            return {"ids": [[ord(word) for word in item["text"].split()] for item in items]}

        found = read({"text": "a b"}, {"text": "c d", "label": 1}, collate=tokenize)
        assert found["ids"].tolist() == [[97, 98], [99, 100]]
        # of a tuple the first part, as the second may be a label; a list may be the numbers themselves
        for items in ([([4, 5], 3), ([6], 3)], [[4, 5], [6]]):
            assert read(*items, collate=lambda items: {"n": [sum(item) for item in items]})["n"].tolist() == [9, 6]

    def test_an_empty_text(self):
        assert read({"x": []})["x"].shape == (1, 0)

    @pytest.mark.parametrize(
        ("items", "error", "match"),
        [
            (
                [{"x": "text"}],
                DataError,
                r"row 0 of the data set \(Plain\) .*'x' is no tensor.* but str; leave .* collate=",
            ),
            ([{"x": [1]}, {"x": [1, "a"]}], DataError, r"row 1 .*'x' is no .* but a list of int, str;"),
            ([{"x": [[1], [1, 2]]}], DataError, r"'x' is no .* of even lengths but a list of list"),
            ([{"x": None}], DataError, "'x' is no .* but NoneType"),
            ([{"x": np.array(["a"])}], DataError, "'x' is no .* but an array of <U1"),
            ([{"label": 1}], DataError, "something else than labels"),
            ([{3: [1]}], DataError, "names must be text, got 3"),
            (
                [{"x": [1]}, {"x": [1, 2]}],
                ShapeError,
                r"of 'x': row 0 has \(1,\), row 1 has \(2,\); give collate=",
            ),
            ([{"x": [1]}, {"y": [1]}], DataError, "the same names: row 0 has x, row 1 has y"),
            ([{"x": [1]}, torch.ones(1)], DataError, "the same names: row 0 has x, row 1 has one tensor"),
        ],
    )
    def test_rows_that_cannot_be_put_together(self, items, error, match):
        with pytest.raises(error, match=match):
            read(*items)

    @pytest.mark.parametrize(
        ("collate", "error", "match"),
        [
            (lambda items: torch.ones(2, 1), DataError, "collate must return a mapping of tensors, got Tensor"),
            (lambda items: {"x": ["a", "b"]}, DataError, "'x' is no tensor.* but a list of str"),
            (lambda items: {"x": torch.ones(3, 1)}, ShapeError, r"of 2 rows for 2 items, got 'x' of shape \(3, 1\)"),
            (lambda items: {"x": torch.tensor(1)}, ShapeError, r"got 'x' of shape \(\)"),
            (lambda items: {"labels": torch.ones(2)}, DataError, "something else than labels"),
            (lambda items: items[7], DataError, r"rows 0 to 1 of the data set \(Plain\) cannot .*collate=: IndexError"),
        ],
    )
    def test_what_collate_may_not_answer(self, collate, error, match):
        with pytest.raises(error, match=match):
            read({"x": [1]}, {"x": [2]}, collate=collate)

    def test_settings(self):
        with pytest.raises(ConfigError, match="collate must be a function, got str"):
            DatasetInputs([{"x": 1}], collate="pad")
        with pytest.raises(ConfigError, match="to_row must be a function, got int"):
            DatasetInputs([{"x": 1}], to_row=3)
        with pytest.raises(DataError, match=r"got a UserDict of 2 columns; make it rows: \[dict\(zip"):
            DatasetInputs(UserDict(ids=torch.ones(5, 3), mask=torch.ones(5, 3)))

    def test_collating_draws_from_the_seed_and_leaves_the_global_generators(self):
        def noisy(items):
            return {"x": torch.rand(len(items)) + random.random() + np.random.random()}  # noqa: NPY002

        inputs = DatasetInputs(Plain([{"x": 1}] * 4), collate=noisy)
        before = torch.get_rng_state(), random.getstate()
        first = inputs.read([0, 1], seed=(3, 1)).tensors["x"]
        assert torch.get_rng_state().equal(before[0])
        assert random.getstate() == before[1]
        assert inputs.read([0, 1], seed=(3, 1)).tensors["x"].equal(first)
        assert not inputs.read([0, 1], seed=(3, 2)).tensors["x"].isclose(first).any()

    def test_some_rows_of_them_and_one_by_one(self):
        inputs = DatasetInputs(Texts(8), collate=pad)[torch.tensor([5, 2, 7])][1:]
        assert inputs.names() == ["input_ids", "attention_mask"]
        whole = DatasetInputs(Texts(8), collate=pad).read([2, 7]).tensors
        assert inputs.read([0, 1]).tensors["input_ids"].equal(whole["input_ids"])
        batches = list(DataLoader(inputs, batch_size=2, collate_fn=pad))
        assert batches[0]["input_ids"].equal(whole["input_ids"])
        assert DatasetInputs(TensorDataset(ROWS)).names() == []


class TestJoined:
    def test_other_rows_come_behind(self):
        texts = DatasetInputs(Texts(6), collate=pad)
        more = DatasetInputs(Foreign(Texts(5, seed=1).items), collate=pad)
        both = texts[torch.tensor([4, 2])].joined(more[1:])
        assert len(both) == 6
        expected = pad([texts.dataset[4], texts.dataset[2], *more.dataset.items[1:]])
        assert both.read(list(range(6))).tensors["input_ids"].equal(expected["input_ids"])

    @pytest.mark.parametrize(
        ("more", "match"),
        [
            (DatasetInputs(Texts(3)), "to_row=, collate= or train= can only be joined by others with the same"),
            (DatasetInputs([{"other": [1]}], collate=dict), "can only be joined"),
            (DatasetInputs(Texts(3), collate=lambda items: {"ids": torch.ones(len(items))}), "can only be joined"),
        ],
    )
    def test_what_is_read_otherwise_is_refused(self, more, match):
        with pytest.raises(DataError, match=match):
            DatasetInputs(Texts(6), collate=pad).joined(more)

    def test_other_names_are_refused(self):
        with pytest.raises(DataError, match="rows of the pool have the names a, the new ones one tensor"):
            DatasetInputs([{"a": 1}]).joined(DatasetInputs(list(ROWS)))


class Foreign:
    """A data set that is none of torch, and reads a batch at once, as one of Hugging Face does."""

    def __init__(self, items):
        self.items, self.asked = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        self.asked.append(row)
        if isinstance(self.items[row], Exception):
            raise self.items[row]
        return self.items[row]

    def __getitems__(self, rows):
        return [self[row] for row in rows]


class TestOtherLibraries:
    def test_their_data_sets_are_known(self):
        texts = Foreign(Texts(6).items)
        assert is_dataset(texts)
        assert is_streamed(texts)
        assert isinstance(as_inputs(texts), DatasetInputs)
        for other in (ROWS, ROWS.numpy(), [{"x": 1}], {"x": 1}, DatasetInputs(texts), "text", None):
            assert not is_dataset(other)

    def test_a_batch_is_read_at_once(self):
        data = Foreign([{"x": [i]} for i in range(6)])
        assert DatasetInputs(data)[torch.tensor([4, 1, 3])].read([2, 0]).tensors["x"].tolist() == [[3], [4]]
        assert data.asked == [3, 4]

    def test_a_row_that_cannot_be_read_is_named(self):
        data = Foreign([{"x": [0]}, {"x": [1]}, OSError("lost"), {"x": [3]}])
        with pytest.raises(DataError, match=r"row 2 of the data set \(Foreign\) cannot be read: OSError: lost"):
            DatasetInputs(data).read([1, 2, 3])

    def test_a_pool_of_them(self):
        pool = Pool.unlabeled(Foreign([{"x": [float(i)]} for i in range(6)]), n_classes=2)
        rows, _ = pool.with_labels(torch.tensor([4, 1]), torch.tensor([0, 1])).training_data()
        assert rows.read([0, 1]).tensors["x"].tolist() == [[1.0], [4.0]]


class TestPool:
    def test_mappings_are_no_points_and_no_table(self):
        inputs = DatasetInputs(Texts(6), collate=pad)
        assert not have_distances(inputs)
        assert not have_distances(DatasetInputs([{"x": [0.5]}]))
        pool = Pool.unlabeled(inputs, n_classes=2)
        for load in (inputs.load, lambda: pool.view(None, generator=torch.Generator()).flat_inputs):
            with pytest.raises(CapabilityError, match=r"mappings \(input_ids, attention_mask\) are no one array"):
                load()

    @pytest.mark.parametrize("model", [GaussianNB(), LogisticRegression(), Committee()])
    def test_a_model_of_one_array_is_refused_before_anybody_labels(self, model):
        pool = Pool.unlabeled(DatasetInputs(Texts(6), collate=pad), n_classes=2)
        with pytest.raises(CapabilityError, match=rf"{type(model).__name__} cannot read rows .* mappings \(input_ids"):
            ActiveLearner(model, Margin(), pool)

    def test_and_by_a_model_itself(self):
        with pytest.raises(CapabilityError, match="are no one array of numbers"):
            LogisticRegression().fit(DatasetInputs(Texts(6), collate=pad), torch.arange(6) % 2)


class TestEmbed:
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_rows_by_name(self, num_workers):
        net = TokenNet(2).eval()
        inputs = DatasetInputs(Texts(40), collate=pad)[torch.arange(39, -1, -1)]
        features, logits = embed(net, inputs, batch_size=7, num_workers=num_workers, progress=False)
        for row in (0, 17, 39):
            alone = embed(net, inputs[row : row + 1], progress=False)
            torch.testing.assert_close(features[row], alone.features[0])
            torch.testing.assert_close(logits[row], alone.logits[0])
        assert net.n_labels_seen == 0

    def test_into_files(self, tmp_path):
        inputs = DatasetInputs(Texts(9), collate=pad)
        net = TokenNet(2)
        there = embed(net, inputs, out=tmp_path / "a.npy", progress=False)
        np.testing.assert_array_equal(there.logits, embed(net, inputs, progress=False).logits)
        assert embed(net, inputs, out=tmp_path / "a.npy", progress=False).logits.shape == (9, 2)
        with pytest.raises(ConfigError, match="first_batch"):
            embed(net, inputs[torch.arange(8, -1, -1)], out=tmp_path / "a.npy", progress=False)

    def test_what_cannot_be_read_is_said(self):
        with pytest.raises(DataError, match=r"a row of 0 to 1 of the data set \(DatasetInputs\) .*give collate="):
            embed(TokenNet(2), DatasetInputs([{"input_ids": [1]}, {"input_ids": [1, 2]}]), progress=False)

    def test_the_head_is_looked_for_in_every_kind_of_answer(self):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                self.head, self.other = nn.Linear(3, 2), nn.Linear(2, 5)

            def forward(self, x):
                logits = self.head(x)
                return {"logits": logits, "more": self.other(logits)}

        with pytest.raises(CapabilityError, match=r"not its head: it gave \(4, 5\) and the network \(4, 2\)"):
            embed(Odd(), ROWS, progress=False)
