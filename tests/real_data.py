"""Real data sets, for tests that compare with what others make of them."""

import functools
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_svmlight_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

FOLDER = Path(__file__).parents[1] / os.environ.get("TORCHAL_DATA", "../shared/data")
FILES = {
    "letter": "letter/letter-recognition.data",
    "australian": "binary-svm/australian-svmstyle.txt.gz",
    "splice": "binary-svm/splice-svmstyle.txt.gz",
    "dna": "dna/dna.scale.train.libsvm.gz",
    "waveform": "waveform/waveform.data.gz",
    "sms-spam": "sms-spam/SMSSpamCollection.tsv.gz",
    "reuters-r8": "reuters-r8/r8.tsv.gz",
}
DENSE = ["digits", "letter", "australian", "splice", "dna", "waveform"]
SPARSE = ["sms-spam", "reuters-r8"]


def real_data(name, *sizes, seed=0):
    """Return parts of so many rows each, (x, y) for each: dense and standardised, or tf-idf as a CSR matrix."""
    x, y = _load(name)
    order = np.random.default_rng(seed).permutation(x.shape[0])
    ends = np.cumsum(sizes)
    return [(x[rows], y[rows]) for rows in np.split(order, ends)[: len(sizes)]]


@functools.cache
def _load(name):
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        return StandardScaler().fit_transform(x), y
    path = FOLDER / FILES[name]
    if not path.exists():
        pytest.skip(f"{name} is not in {FOLDER}: set TORCHAL_DATA to the folder with the data sets")
    if name in SPARSE:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            cells = [line.rstrip("\n").split("\t") for line in file]
        return TfidfVectorizer().fit_transform([row[-1] for row in cells]).tocsr(), np.array([row[-2] for row in cells])
    if name in ("australian", "splice", "dna"):
        x, y = load_svmlight_file(str(path))
        return StandardScaler().fit_transform(x.toarray()), y.astype(int)
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt") as file:
        cells = [line.strip().replace("\t", "").split(",") for line in file if line.strip()]
    if name == "letter":
        del cells[0]  # the names of the columns
    target = 0 if name == "letter" else -1
    y = np.array([row.pop(target) for row in cells])
    return StandardScaler().fit_transform(np.array(cells, dtype=float)), y
