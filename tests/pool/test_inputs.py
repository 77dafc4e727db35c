import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from torchal import Pool, embed
from torchal.errors import DataError, ShapeError
from torchal.pool.inputs import DatasetInputs, as_inputs, gather, is_streamed, read_rows

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
        with pytest.raises(
            DataError, match=r"row 0 of the data set \(Plain\) cannot be read: .*got dict; give to_row="
        ):
            DatasetInputs(Plain([{"x": row} for row in ROWS])).load()

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


def test_what_is_streamed(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_streamed(mapped)
    assert is_streamed(TensorDataset(ROWS))
    assert is_streamed(DatasetInputs(TensorDataset(ROWS)))
    assert not is_streamed(ROWS)
    assert not is_streamed(ROWS.numpy())
    assert read_rows(mapped, [1, 0]).equal(ROWS[[1, 0]])
    assert isinstance(gather(mapped, torch.tensor([1])), np.ndarray)
    with pytest.raises(DataError, match="must be numbers"):
        as_inputs(np.array(["a"]))


def test_other_byte_orders_are_read(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.numpy().astype(">f4"))
    assert read_rows(np.load(tmp_path / "x.npy", mmap_mode="r"), [2]).equal(ROWS[2:3])


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
