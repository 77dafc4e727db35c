"""CIFAR and SVHN, from small archives in the format of the published ones."""

import io
import tarfile

import numpy as np
import pytest
import torch

from torchal.data import cifar10, cifar100, svhn
from torchal.errors import ConfigError, DataError

DRAW = np.random.default_rng(0)
TRAIN, TEST = (DRAW.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8) for n in (50, 20))


def archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def records(images, *labels):
    return b"".join(bytes(each[row] for each in labels) + image.tobytes() for row, image in enumerate(images))


@pytest.fixture
def ten(tmp_path):
    folder = "cifar-10-batches-bin"
    batches = {
        f"{folder}/data_batch_{i + 1}.bin": records(TRAIN[10 * i : 10 * i + 10], [row % 10 for row in range(10)])
        for i in reversed(range(5))
    }
    names = "\n".join(
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck", "", ""]
    )
    test = records(TEST, [row % 10 for row in range(20)])
    more = {
        f"{folder}/batches.meta.txt": names.encode(),
        f"{folder}/test_batch.bin": test,
        f"{folder}/readme.html": b"",
    }
    return archive(tmp_path / "cifar-10-binary.tar.gz", batches | more)


@pytest.fixture
def hundred(tmp_path):
    folder = "cifar-100-binary"
    fine, coarse = [f"thing{i:02}" for i in range(100)], [f"group{i:02}" for i in range(20)]
    of = [2 * row for row in range(50)]
    files = {
        "train.bin": records(TRAIN, [label // 5 for label in of], of),
        "test.bin": records(TEST, [label // 5 for label in of[:20]], of[:20]),
        "fine_label_names.txt": "\n".join(fine).encode(),
        "coarse_label_names.txt": "\n".join(coarse).encode(),
    }
    return archive(tmp_path / "cifar-100-binary.tar.gz", {f"{folder}/{name}": each for name, each in files.items()})


@pytest.fixture
def houses(tmp_path):
    from scipy.io import savemat

    for part, images in (("train", TRAIN), ("test", TEST)):
        labels = (np.arange(len(images)) % 10 + 1).astype(np.uint8)[:, None]
        savemat(tmp_path / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels}, do_compression=True)
    return tmp_path


def check(data, labels_of):
    """Require the official test part, in order, and each training image in its place."""
    assert data.test_rows.tolist() == list(range(50, 70))
    assert torch.equal(data.test.inputs * 255, torch.from_numpy(TEST).float())
    assert sorted([*data.train_rows.tolist(), *data.validation_rows.tolist()]) == list(range(50))
    images = torch.from_numpy(TRAIN)[data.train_rows].float()
    torch.testing.assert_close(data.train.inputs * 255, images)
    named = [data.class_names[target] for target in data.train.targets]
    assert named == [labels_of(row) for row in data.train_rows.tolist()]


def test_cifar10_is_in_the_order_of_its_batches(ten):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    check(cifar10(ten), lambda row: names[row % 10])
    flat = cifar10(ten, flat=True, keep=["cat", "dog"], test_limit=2)
    assert flat.train.inputs.shape[1:] == (3072,)
    assert (flat.class_names, len(flat.test.targets)) == (("cat", "dog"), 2)


def test_cifar100_has_things_and_groups(hundred):
    check(cifar100(hundred), lambda row: f"thing{2 * row:02}")
    check(cifar100(hundred, coarse=True), lambda row: f"group{2 * row // 5:02}")
    assert cifar100(hundred, coarse=True).name == "cifar100_coarse"


def test_svhn_has_digits_of_which_ten_is_zero(houses):
    check(svhn(houses), lambda row: str((row + 1) % 10))
    assert len(svhn(houses, official_test=False).train.targets) == 46


def test_what_is_wrong_is_said(ten, hundred, houses, tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz has no cifar-100-binary/train.bin"):
        cifar100(ten)
    content = ten.read_bytes()
    for damaged in (content[:-200], content[:100], b"", b"no archive"):
        ten.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz (is damaged or|has no|must have)"):
            cifar10(ten)
    folder = "cifar-10-batches-bin"
    short = {f"{folder}/data_batch_{i}.bin": records(TRAIN[:2], [0, 1])[:-1] for i in range(1, 6)}
    archive(ten, short | {f"{folder}/test_batch.bin": b"", f"{folder}/batches.meta.txt": b"a b"})
    with pytest.raises(DataError, match=r"images of 3073 bytes each, got 6145 bytes"):
        cifar10(ten)
    whole = {name: records(TRAIN[:2], [0, 9]) for name in short}
    archive(ten, whole | {f"{folder}/test_batch.bin": records(TEST, [1] * 20), f"{folder}/batches.meta.txt": b"a b"})
    with pytest.raises(DataError, match=r"labels up to 9, and names of 2 classes"):
        cifar10(ten)
    (houses / "test_32x32.mat").write_bytes((houses / "test_32x32.mat").read_bytes()[:-500])
    with pytest.raises(DataError, match=r"test_32x32.mat is damaged or not a file of MATLAB"):
        svhn(houses)
    from scipy.io import savemat

    savemat(houses / "train_32x32.mat", {"X": np.zeros((3, 3)), "y": np.zeros((3, 1))})
    with pytest.raises(DataError, match=r"train_32x32.mat must have X, \(32, 32, 3, M\) uint8"):
        svhn(houses)
    with pytest.raises(DataError, match=r"none/train_32x32.mat cannot be read"):
        svhn(tmp_path / "none")
    with pytest.raises(ConfigError, match="test_limit=3 cannot go with official_test=False"):
        svhn(houses, official_test=False, test_limit=3)
    with pytest.raises(ConfigError, match="coarse must be true or false"):
        cifar100(hundred, coarse="yes")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_are_read_or_refused(seed, ten, houses):
    draw = np.random.default_rng(seed)
    for file, read in ((ten, lambda: cifar10(ten)), (houses / "train_32x32.mat", lambda: svhn(houses))):
        content = bytearray(file.read_bytes())
        for place in draw.integers(0, len(content) if seed % 2 else 400, 4):
            content[place] = draw.integers(0, 256)
        file.write_bytes(content)
        said = ""
        try:
            read()
        except DataError as error:
            said = str(error)
        assert not said or file.name in said or "two classes" in said
