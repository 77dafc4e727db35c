import pytest

from torchal.errors import DataError
from torchal.exchange import Answers, Question
from torchal.exchange.answers import Collector, ImageNames


class TestAnswers:
    def test_labels_of_rows(self):
        answers = Answers(["a", "b", "a", "c"], ["x", None, "x", "y"], ["me", None, "you", "me"])
        assert answers.labels_of() == {"a": "x", "c": "y"}
        assert len(answers) == 4
        assert answers.skipped == [False] * 4

    def test_people_who_disagree(self):
        with pytest.raises(DataError, match="gave 1 of 2 rows different labels, as 'a'"):
            Answers(["a", "b", "a"], ["x", "y", "z"]).labels_of()

    def test_refuses_lists_that_do_not_fit(self):
        with pytest.raises(DataError, match=r"one length, got \[1, 2, 1, 1\]"):
            Answers(["a"], ["x", "y"])
        with pytest.raises(DataError, match="1 of 1 rows were skipped and have a label"):
            Answers(["a"], ["x"], skipped=[True])


class TestCollector:
    def test_an_answer_counts_more_than_none(self, tmp_path):
        found = Collector(tmp_path)
        for label, by, skipped in ((None, None, False), (None, "me", True), ("x", "you", False), ("x", "you", False)):
            found.add("a", label, where="here", by=by, skipped=skipped)
        assert found.answers() == Answers(["a", "a"], [None, "x"], ["me", "you"], [True, False])

    def test_the_same_person_twice(self, tmp_path):
        found = Collector(tmp_path)
        found.add("a", "x", where="line 1", by="me")
        found.add("a", "y", where="line 2", by="me")
        with pytest.raises(DataError, match="the id 'a' has the label 'x' by me in line 1, and 'y' in line 2"):
            found.answers()


class TestImageNames:
    def names(self, *images):
        return ImageNames([Question(f"q{i}", i, None, "m", image=image) for i, image in enumerate(images)])

    def test_by_the_path_or_its_end(self, tmp_path):
        names, found = self.names("a/b/1.png", "a/c/2.png", "c/2.png"), Collector(tmp_path)
        assert names.id_of("a/b/1.png", where="x", found=found) == "q0"
        assert names.id_of("1.png", where="x", found=found) == "q0"
        assert names.id_of("c/2.png", where="x", found=found) == "q2"
        assert names.id_of("2.png", where="image 3", found=found) is None
        assert names.id_of("3.png", where="image 4", found=found) is None
        with pytest.raises(DataError, match=r"'2.png': 2 questions have such an image\n- .*'3.png': no question"):
            found.answers()

    def test_without_questions_the_name_is_the_id(self, tmp_path):
        assert ImageNames(None).id_of("a/1.png", where="x", found=Collector(tmp_path)) == "a/1.png"
