"""20 Newsgroups, RCV1 and Wikipedia's talk pages, from small files in the format of the published ones."""

import gzip
import io
import tarfile

import pytest

from torchal.data import newsgroup, rcv1, wikipedia_attack
from torchal.errors import ConfigError, DataError


@pytest.fixture
def news(tmp_path):
    path = tmp_path / "20news-bydate.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for part, n in (("test", 6), ("train", 12)):
            for i in range(n):
                group = ("sci.space", "rec.autos")[i % 2]
                text = f"From: someone{i}\nSubject: secret{group}\n\nwords of {group} caf\xe9 number{i % 3}\n"
                about = tarfile.TarInfo(f"20news-bydate-{part}/{group}/{100 + i}")
                content = text.encode("latin-1")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
    return path


def test_newsgroups_come_without_their_headers(news):
    data = newsgroup(news, official_test=True)
    assert data.class_names == ("rec.autos", "sci.space")
    assert (len(data.train.targets), len(data.validation.targets), len(data.test.targets)) == (10, 2, 6)
    assert data.test_rows.tolist() == list(range(12, 18))
    assert data.test.targets.tolist() == [0, 0, 0, 1, 1, 1]
    # words, of, rec, autos, sci, space, café, number0 to 2: nothing of the headers
    assert data.train.inputs.shape == (10, 10)
    assert newsgroup(news, max_features=3).train.inputs.shape[1] == 3


def test_what_is_no_archive_of_news_is_refused(news, tmp_path):
    news.write_bytes(news.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"20news-bydate.tar.gz (is damaged|must have)"):
        newsgroup(news)
    with pytest.raises(DataError, match=r"none cannot be read"):
        newsgroup(tmp_path / "none")
    with tarfile.open(tmp_path / "empty", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"must have messages in 20news-bydate-train"):
        newsgroup(tmp_path / "empty")


@pytest.fixture
def reuters(tmp_path):
    topics = []
    rows = []
    for i in range(48):
        number = 2000 + 3 * i
        own = ("CCAT", "ECAT", "GCAT", "MCAT")[i % 4]
        topics += [f"{own} {number} 1", f"C1{i % 4} {number} 1"]
        if i % 8 == 5:
            topics.append(f"{'GCAT' if own == 'ECAT' else 'ECAT'} {number} 1")  # two at the top
        rows.append(f"{number} {1 + i % 4}:0.6 {47236 - i}:0.8")
    topics.append("C15 1 1")
    (tmp_path / "rcv1v2.topics.qrels.gz").write_bytes(gzip.compress("\n".join(topics).encode()))
    names = ["lyrl2004_vectors_train.dat", *(f"lyrl2004_vectors_test_pt{i}.dat" for i in range(4))]
    for name, part in zip(names, (rows[:16], rows[16:24], rows[24:32], rows[32:40], rows[40:]), strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(("\n".join(part) + "\n").encode()))
    return tmp_path


def test_rcv1_is_what_has_a_single_topic_at_the_top(reuters):
    data = rcv1(reuters, official_test=True)
    assert data.class_names == ("CCAT", "ECAT", "GCAT", "MCAT")
    left = [i for i in range(48) if i % 8 != 5]
    sizes = [len(part.targets) for part in (data.train, data.validation, data.test)]
    assert sum(sizes) == len(left)
    assert sizes[2] == sum(i >= 16 for i in left)
    assert data.test.targets.tolist() == [i % 4 for i in left if i >= 16]
    matrix = data.test.inputs.matrix
    assert matrix.shape == (sizes[2], 47236)
    for row, i in enumerate(i for i in left if i >= 16):
        assert matrix[row].nonzero()[1].tolist() == [i % 4, 47235 - i]


def test_what_is_no_rcv1_is_refused(reuters):
    with pytest.raises(ConfigError, match="official_test must be true or false"):
        rcv1(reuters, official_test=1)
    file = reuters / "lyrl2004_vectors_test_pt2.dat.gz"
    good = file.read_bytes()
    for content in (good[:-9], gzip.compress(b"2000 1:x\n"), gzip.compress(b"2000 99999:1\n")):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"lyrl2004_vectors_test_pt2.dat.gz"):
            rcv1(reuters)
    file.unlink()
    with pytest.raises(DataError, match=r"lyrl2004_vectors_test_pt2.dat cannot be read"):
        rcv1(reuters)
    file.write_bytes(good)
    (reuters / "rcv1v2.topics.qrels.gz").write_bytes(gzip.compress(b"CCAT\n"))
    with pytest.raises(DataError, match=r"rcv1v2.topics.qrels.gz is damaged"):
        rcv1(reuters)
    (reuters / "rcv1v2.topics.qrels.gz").write_bytes(gzip.compress(b"CCAT 1 1\n"))
    with pytest.raises(DataError, match=r"no document with a single one of the topics CCAT, ECAT"):
        rcv1(reuters)


@pytest.fixture
def talk(tmp_path):
    comments = ["rev_id\tcomment\tyear\tlogged_in\tns\tsample\tsplit"]
    ratings = ["rev_id\tworker_id\tattack"]
    for i in range(24):
        number = 900 - 7 * i  # not in order
        text = f"`{'you fool' if i % 3 == 0 else 'thank you'}NEWLINE_TOKENfor{i % 2} the TAB_TOKEN edit"
        comments.append(f"{number}\t{text}\t2004\tTrue\tarticle\trandom\ttrain")
        ratings += [f"{number}\t{worker}\t{1.0 if i % 3 == 0 and worker < 2 else 0.0}" for worker in range(3)]
    (tmp_path / "attack_annotated_comments.tsv").write_text("\n".join(comments))
    (tmp_path / "attack_annotations.tsv").write_text("\n".join([ratings[0], *sorted(ratings[1:])]))
    return tmp_path


def test_an_attack_is_what_most_call_one(talk):
    pytest.importorskip("pandas")
    data = wikipedia_attack(talk)
    assert data.class_names == ("no", "attack")
    for rows, part in ((data.train_rows, data.train), (data.test_rows, data.test)):
        assert part.targets.tolist() == [int(row % 3 == 0) for row in rows.tolist()]
    # you fool for0 for1 the edit thank, and pairs of neighbours
    assert data.train.inputs.shape[1] > 8
    assert wikipedia_attack(talk, max_features=5).train.inputs.shape[1] == 5


def test_what_is_no_talk_is_refused(talk):
    pytest.importorskip("pandas")
    ratings = talk / "attack_annotations.tsv"
    good = ratings.read_text()
    ratings.write_text("\n".join(good.split("\n")[:-3]))
    with pytest.raises(DataError, match=r"1 comments were not rated, as 900"):
        wikipedia_attack(talk)
    ratings.write_text(good.replace("1.0", "yes"))
    with pytest.raises(DataError, match=r"attack must be a number"):
        wikipedia_attack(talk)
    ratings.write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match=r"attack_annotations.tsv is damaged, or has no columns rev_id, attack"):
        wikipedia_attack(talk)
    ratings.unlink()
    with pytest.raises(DataError, match=r"attack_annotations.tsv cannot be read"):
        wikipedia_attack(talk)
