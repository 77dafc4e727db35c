import gzip

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tests.real_data import FOLDER
from torchal import ConfigError, DataError, ShapeError, SparseInputs
from torchal.data import reuters_r8, sms_spam, split_documents

TEXTS = [f"word{i} shared" if i % 3 else f"word{i} other" for i in range(60)]
LABELS = ["ham", "spam"] * 30


class TestDocuments:
    def test_words_are_those_of_the_training_part(self):
        data = split_documents(TEXTS, LABELS, name="made")
        train = [TEXTS[row] for row in data.train_rows.tolist()]
        vectorizer = TfidfVectorizer().fit(train)
        for part in ("train", "validation", "test"):
            texts = [TEXTS[row] for row in getattr(data, f"{part}_rows").tolist()]
            inputs = getattr(data, part).inputs
            assert isinstance(inputs, SparseInputs)
            assert np.allclose(inputs.matrix.toarray(), vectorizer.transform(texts).toarray(), atol=1e-6)
        assert data.train.inputs.shape[1] == 42  # 40 words of their own, shared and other; none of the other parts

    def test_settings(self):
        data = split_documents(TEXTS, LABELS, name="made", max_features=2, keep=["ham", "spam"], max_rows=30)
        assert data.train.inputs.shape == (20, 2)
        with pytest.raises(ConfigError, match="standardize=true would make sparse rows dense"):
            split_documents(TEXTS, LABELS, name="made", standardize=True)
        with pytest.raises(ConfigError, match="max_features must be"):
            split_documents(TEXTS, LABELS, name="made", max_features=0)

    def test_an_official_test_part(self):
        data = split_documents(TEXTS, LABELS, name="made", n_train=50)
        assert data.test_rows.tolist() == list(range(50, 60))
        assert len(data.train.targets) + len(data.validation.targets) == 50
        rows = {"train_rows": [0, 1], "validation_rows": [2], "test_rows": [3]}
        with pytest.raises(ConfigError, match="cannot go with explicit rows"):
            split_documents(TEXTS, LABELS, name="made", n_train=50, **rows)

    @pytest.mark.parametrize(
        ("documents", "labels", "error", "message"),
        [
            (["?"] * 60, LABELS, DataError, "documents for training have no words"),
            ([None] * 60, LABELS, DataError, "must be texts"),
            (TEXTS, LABELS[:-1], ShapeError, "60 rows of inputs, 59 labels"),
            (TEXTS, ["ham"] * 60, DataError, "two classes are needed"),
        ],
    )
    def test_refuses(self, documents, labels, error, message):
        with pytest.raises(error, match=message):
            split_documents(documents, labels, name="made")


class TestFiles:
    def test_sms_spam(self, tmp_path):
        lines = "".join(f"{label}\t{text}\n" for label, text in zip(LABELS, TEXTS, strict=True))
        (tmp_path / "a.tsv").write_text(lines)
        (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(lines.replace("\n", "\r\n").encode()))
        plain, zipped = sms_spam(tmp_path / "a.tsv"), sms_spam(tmp_path / "b.tsv")
        assert plain.class_names == ("ham", "spam")
        assert (plain.train.inputs.matrix != zipped.train.inputs.matrix).nnz == 0

    def test_reuters_as_one_file_and_as_published(self, tmp_path):
        cells = [("train" if i < 50 else "test", LABELS[i], TEXTS[i]) for i in range(60)]
        order = np.random.default_rng(0).permutation(60)
        (tmp_path / "joined").mkdir()
        (tmp_path / "joined" / "r8.tsv").write_text("".join("\t".join(cells[i]) + "\n" for i in range(60)))
        (tmp_path / "R8.txt").write_text("".join(f"{i}\t{cells[i][0]}\t{cells[i][1]}\n" for i in sorted(order)))
        (tmp_path / "R8.clean.txt").write_text("".join(f"{cells[i][2]}\n" for i in range(60)))
        one = reuters_r8(tmp_path / "joined", official_test=True)
        two = reuters_r8(tmp_path, official_test=True)
        assert len(one.test.targets) == 10
        assert (one.test.inputs.matrix != two.test.inputs.matrix).nnz == 0
        (tmp_path / "R8.clean.txt").write_text("one\n")
        with pytest.raises(DataError, match=r"R8\.txt has 60 lines and R8\.clean\.txt 1"):
            reuters_r8(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is empty"),
            (b"ham\n", "line 1: 1 cells, 2 are needed"),
            (b"ham\ta\n\nspam\tb\n", "line 2: 1 cells"),
            (b"ham\t\xff\n", "not UTF-8"),
            (gzip.compress(b"ham\ta\n", mtime=0)[:-5], "damaged"),
        ],
    )
    def test_refuses_damaged_files(self, content, message, tmp_path):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(DataError, match=message):
            sms_spam(tmp_path / "a")

    def test_a_missing_file_and_an_unknown_part(self, tmp_path):
        with pytest.raises(DataError, match="cannot be read: No such file"):
            reuters_r8(tmp_path)
        (tmp_path / "r8.tsv").write_text("dev\tacq\tsome text\n" * 20)
        with pytest.raises(DataError, match="of train or test, got dev"):
            reuters_r8(tmp_path)


def test_the_files_at_hand():
    if not (FOLDER / "sms-spam").exists():
        pytest.skip(f"sms-spam is not in {FOLDER}: set TORCHAL_DATA to the folder with the data sets")
    spam = sms_spam(FOLDER / "sms-spam" / "SMSSpamCollection.tsv")
    assert sum(len(part.targets) for part in (spam.train, spam.validation, spam.test)) == 5574
    news = reuters_r8(FOLDER / "reuters-r8", official_test=True)
    assert len(news.test.targets) == 2189
    assert len(news.class_names) == 8


class TestPrincipalDirections:
    TEXTS = [f"word{i % 5} and word{i % 7} of {'cats' if i % 2 else 'dogs'}" for i in range(60)]

    def test_are_those_of_the_training_part(self):
        parts = {"train_rows": range(40), "validation_rows": [], "test_rows": range(40, 60)}
        data = split_documents(self.TEXTS, [i % 2 for i in range(60)], name="pets", n_components=2, **parts)
        words = split_documents(self.TEXTS, [i % 2 for i in range(60)], name="pets", **parts)
        assert data.train.inputs.shape == (40, 2)
        _, _, directions = np.linalg.svd(words.train.inputs.matrix.toarray().astype(np.float64), full_matrices=False)
        for part in ("train", "test"):
            want = getattr(words, part).inputs.matrix.toarray() @ directions[:2].T
            got = getattr(data, part).inputs.numpy()
            np.testing.assert_allclose(np.abs(got), np.abs(want), atol=2e-4)  # a direction has two signs
        scaled = split_documents(self.TEXTS, [i % 2 for i in range(60)], name="pets", n_components=3, standardize=True)
        assert scaled.train.inputs.mean(0).abs().max() < 1e-5

    @pytest.mark.parametrize(
        ("n", "words"), [(0, "at least 1, got 0"), (400, "at most 1[0-9], one less than the 40 d")]
    )
    def test_that_are_impossible_are_refused(self, n, words):
        with pytest.raises(ConfigError, match=f"n_components must be .*{words}"):
            split_documents(self.TEXTS, [i % 2 for i in range(60)], name="pets", n_components=n)
