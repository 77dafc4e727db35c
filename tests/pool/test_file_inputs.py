import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal import CapabilityError, DataError, FileRows, LogisticRegression, Pool
from torchal.pool import FileInputs, file_inputs, interop


@pytest.fixture(scope="module")
def values():
    return torch.randn(100, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inputs(values, tmp_path_factory):
    return FileInputs(FileRows(written(tmp_path_factory.mktemp("rows"), values.numpy())))


def written(folder, values, *, each=30):
    files = [folder / f"{start}.npy" for start in range(0, len(values), each)]
    for start, file in zip(range(0, len(values), each), files, strict=True):
        np.save(file, values[start : start + each])
    return files


def small_blocks(patch):
    patch.setattr(file_inputs, "_MOST_ROWS", 7)
    patch.setattr(file_inputs, "_FEWEST_ROWS", 1)


def test_rows_by_number_are_float32_in_that_order(values, tmp_path):
    half = FileInputs(FileRows(written(tmp_path, values.numpy().astype(np.float16))))
    rows = torch.tensor([99, 3, 3, 31])
    assert half[rows].equal(values.half().float()[rows])
    assert half.features.dtype == torch.float16
    assert half[40:60][torch.tensor([1])].equal(values.half().float()[[41]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100), st.integers(0, 100))
def test_what_is_computed_in_blocks_does_not_hang_on_who_has_which_rows(values, inputs, first, second):
    start, stop = sorted((first, second))
    seen = []

    def compute(rows):
        seen.append(rows.clone())
        return rows.sum(1), rows * (rows[0, 0] + len(rows))  # which depends on the block

    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        whole = inputs.in_blocks(compute)
        seen.clear()
        part = inputs[start:stop].in_blocks(compute)
    assert all(len(rows) <= 7 for rows in seen)
    assert whole[0].equal(values.sum(1))
    for of_part, of_all in zip(part, whole, strict=True):
        assert of_part.equal(of_all[start:stop])


def test_a_model_says_of_a_part_what_it_says_of_all(values, inputs, monkeypatch):
    small_blocks(monkeypatch)
    model = LogisticRegression(C=1.0).fit(values, (values[:, 0] > 0).long())
    whole = interop.log_probs(model, inputs)
    torch.testing.assert_close(whole, interop.log_probs(model, values))
    assert interop.log_probs(model, inputs[13:58]).equal(whole[13:58])
    assert interop.log_probs(model, inputs[13:13]).shape == (0, 2)
    assert interop.predictions(model, inputs[50:]).equal(interop.predictions(model, values)[50:])


class Network:
    """A model that gives features and logits in one pass, as a network does."""

    takes_tensors = takes_inputs = True
    classes_ = torch.tensor([0, 1])

    def predict(self, X):
        return self.outputs(X, most_features=0)[1].argmax(1)

    def outputs(self, X, *, most_features):
        features = X[:, :3] * 2
        keep = most_features is None or features.numel() <= most_features
        return features if keep else None, X[:, :2]


def test_to_know_the_features_of_a_network_one_row_is_read(values, inputs, monkeypatch):
    read = []
    whole = FileRows.read
    monkeypatch.setattr(FileRows, "read", lambda rows, *ends: read.append(ends) or whole(rows, *ends))
    interop.outputs(Network(), inputs, most_features=300)
    assert read == [(0, 100)]  # and the row by its number


@pytest.mark.parametrize(("most", "kept"), [(None, True), (300, True), (299, False), (0, False)])
def test_a_network_keeps_features_as_it_does_of_a_tensor(values, inputs, monkeypatch, most, kept):
    small_blocks(monkeypatch)
    features, logits = interop.outputs(Network(), inputs, most_features=most)
    assert logits.equal(values[:, :2])
    assert (features is not None) == kept
    assert features is None or features.equal(values[:, :3] * 2)


def test_rows_that_are_not_finite_are_named(values, tmp_path):
    bad = values.clone()
    bad[77, 2] = torch.inf
    inputs = FileInputs(FileRows(written(tmp_path, bad.numpy())))
    with pytest.raises(DataError, match="1 of 100 rows that were read are not, the first of them is row 77"):
        inputs.in_blocks(lambda rows: (rows,))
    with pytest.raises(DataError, match="1 of 2 rows that were read are not, the first of them is row 77"):
        _ = inputs[torch.tensor([5, 77])]
    for row in (37, -3):  # of a part, in which they count from its first
        with pytest.raises(DataError, match="the first of them is row 77"):
            _ = inputs[40:80][torch.tensor([row])]
    large = FileInputs(FileRows(written(tmp_path, values.double().numpy() * 1e300)))
    with pytest.raises(DataError, match="as float32 too"):
        _ = large[torch.tensor([0])]


def test_files_that_change_are_an_error(values, tmp_path):
    files = written(tmp_path, values.numpy())
    inputs = FileInputs(FileRows(files))
    np.save(files[1], values.numpy()[:10])
    with pytest.raises(DataError, match="since it was opened"):
        inputs.in_blocks(lambda rows: (rows,))


def test_they_are_no_array(inputs):
    with pytest.raises(CapabilityError, match="100 rows in files are no array"):
        np.asarray(inputs)
    with pytest.raises(CapabilityError, match="100 rows in files are no array"):
        LogisticRegression().fit(inputs, [0, 1] * 50)


def test_a_pool_is_made_of_files_and_known_again(values, inputs, tmp_path):
    pool = Pool.unlabeled(inputs.features, n_classes=2)
    assert isinstance(pool.inputs, FileInputs)
    assert pool.fingerprint() == Pool.unlabeled(copy.deepcopy(inputs), n_classes=2).fingerprint()
    assert pickle.loads(pickle.dumps(inputs)).fingerprint == inputs.fingerprint
    other = values.clone()
    other[99, 4] += 1
    others = Pool.unlabeled(FileRows(written(tmp_path, other.numpy())), n_classes=2)
    assert pool.fingerprint() != others.fingerprint()
    grown = Pool.unlabeled(FileRows(written(tmp_path, torch.cat([values, values]).numpy())), n_classes=2)
    assert grown.fingerprint(100) == pool.fingerprint()
    assert grown.fingerprint() != pool.fingerprint()
    labeled = pool.with_labels([3, 98], [0, 1])
    rows, labels = labeled.training_data()
    assert rows.equal(values[[3, 98]])
    assert labels.tolist() == [0, 1]
