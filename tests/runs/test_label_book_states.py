"""Whatever people do, in whatever order: the labels of a learner are those of a dictionary."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.contracts import NearestMean
from torchal import ActiveLearner, DataError, Pool
from torchal.functional.selection import Selection
from torchal.samplers import Sampler

WORDS = ("ham", "spam", "eggs")
LABELS = st.sampled_from([*WORDS, None])
PEOPLE = st.sampled_from(["ann", "bob", "cy"])
N_ROWS = 8


class Notes(Sampler):
    """Picks at random without a model, and notes the labels that it is told of."""

    reads_model = False

    def __init__(self):
        self.known, self.n_rows = {}, None

    def select(self, view, n):
        scores = torch.rand(len(view), generator=view.generator)
        rows = scores.masked_fill(~view.candidates, -1).topk(n).indices
        return Selection(rows, scores[rows])

    def observe(self, result):
        rows = result.rows.tolist()
        assert not self.known.keys() & set(rows), "a label is observed twice"
        self.known |= zip(rows, result.labels.tolist(), strict=True)

    def revised(self, rows, labels):
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            assert row in self.known, "a label that was not observed cannot be another"
            self.known[row] = label
        self.known = {row: label for row, label in self.known.items() if label >= 0}

    def extended(self, n_rows):
        self.n_rows = n_rows

    def state_dict(self):
        return {"known": dict(self.known), "n_rows": self.n_rows}

    def load_state_dict(self, state):
        self.known, self.n_rows = dict(state["known"]), state["n_rows"]


class LabelsInADictionary(RuleBasedStateMachine):
    @initialize(learns=st.booleans(), consensus=st.sampled_from(["majority", "unanimous"]))
    def begin(self, learns, consensus):
        self.x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
        self.learns, self.consensus, self.n_rows = learns, consensus, N_ROWS
        self.labels, self.skipped, self.votes, self.asked = {}, set(), {}, []
        self.learner = self.make()

    def make(self):
        pool = Pool.unlabeled(self.x[: self.n_rows], classes=None if self.learns else WORDS)
        return ActiveLearner(NearestMean(), Notes(), pool, consensus=self.consensus)

    def rows_of(self, data, rows):
        return data.draw(st.lists(st.sampled_from(sorted(rows)), min_size=1, max_size=4, unique=True))

    @property
    def open_rows(self):
        return set(range(self.n_rows)) - self.labels.keys() - self.skipped

    @property
    def free(self):
        return self.open_rows - set(self.asked)

    def give(self, row, label):
        """Write down a label, None where nobody can tell; what is answered waits no more."""
        self.labels.pop(row, None)
        self.skipped.discard(row)
        if label is None:
            self.skipped.add(row)
        else:
            self.labels[row] = label
        self.asked = [other for other in self.asked if other != row]

    @precondition(lambda self: self.free)
    @rule(data=st.data())
    def ask(self, data):
        rows = self.learner.ask(data.draw(st.integers(1, min(3, len(self.free))))).tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= self.free
        self.asked += rows

    @precondition(lambda self: self.open_rows | self.skipped)
    @rule(data=st.data())
    def tell(self, data):
        rows = self.rows_of(data, self.open_rows | self.skipped)
        labels = data.draw(st.lists(LABELS, min_size=len(rows), max_size=len(rows)))
        self.learner.tell(rows, labels)
        for row, label in zip(rows, labels, strict=True):
            self.votes.pop(row, None)
            self.give(row, label)

    @rule(data=st.data(), who=PEOPLE)
    def tell_by(self, data, who):
        rows = self.rows_of(data, set(range(self.n_rows)))
        labels = data.draw(st.lists(LABELS, min_size=len(rows), max_size=len(rows)))
        if any(row in self.labels and row not in self.votes for row in rows):
            with pytest.raises(DataError, match=r"labeled already, by nobody"):
                self.learner.tell(rows, labels, by=who)
            return
        self.learner.tell(rows, labels, by=who)
        for row, label in zip(rows, labels, strict=True):
            self.votes.setdefault(row, {})[who] = label
            votes = Counter(said for said in self.votes[row].values() if said is not None)
            best = [said for said, n in votes.items() if n == max(votes.values())]
            if not votes:
                self.give(row, None)
            elif len(votes) == 1 or (self.consensus == "majority" and len(best) == 1):
                self.give(row, best[0])
            elif self.consensus == "unanimous":
                self.labels.pop(row, None)
            if row in self.labels.keys() | self.skipped:
                self.asked = [other for other in self.asked if other != row]

    @precondition(lambda self: self.labels)
    @rule(data=st.data())
    def tell_what_is_labeled(self, data):
        row = data.draw(st.sampled_from(sorted(self.labels)))
        with pytest.raises(DataError, match=r"labeled already"):
            self.learner.tell([row], ["bacon" if self.learns else "ham"])

    @precondition(lambda self: self.labels)
    @rule(data=st.data())
    def relabel(self, data):
        rows = self.rows_of(data, self.labels)
        labels = data.draw(st.lists(LABELS, min_size=len(rows), max_size=len(rows)))
        self.learner.relabel(rows, labels)
        for row, label in zip(rows, labels, strict=True):
            self.votes.pop(row, None)
            self.give(row, label)

    @precondition(lambda self: self.labels.keys() | self.skipped)
    @rule(data=st.data())
    def unlabel(self, data):
        rows = self.rows_of(data, self.labels.keys() | self.skipped)
        self.learner.unlabel(rows)
        for row in rows:
            self.votes.pop(row, None)
            self.labels.pop(row, None)
            self.skipped.discard(row)

    @precondition(lambda self: self.open_rows)
    @rule(data=st.data())
    def cannot_label(self, data):
        rows = self.rows_of(data, self.open_rows)
        self.learner.cannot_label(rows)
        for row in rows:
            self.votes.pop(row, None)
            self.give(row, None)

    @precondition(lambda self: self.votes)
    @rule(data=st.data())
    def ask_again(self, data):
        rows = self.rows_of(data, self.votes)
        assert self.learner.ask_again(rows).tolist() == rows
        for row in rows:
            self.labels.pop(row, None)
            self.skipped.discard(row)
        self.asked += [row for row in rows if row not in self.asked]

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def release(self, data):
        rows = self.rows_of(data, self.asked)
        self.learner.release(rows)
        self.asked = [row for row in self.asked if row not in rows]

    @precondition(lambda self: self.n_rows < 16)
    @rule(m=st.integers(1, 3))
    def extend(self, m):
        more = self.x[self.n_rows : self.n_rows + m]
        assert self.learner.extend(more).tolist() == list(range(self.n_rows, self.n_rows + m))
        self.n_rows += m
        assert self.learner.sampler.n_rows == self.n_rows

    @precondition(lambda self: len(set(self.labels.values())) > 1 and self.learner.has_news)
    @rule()
    def finish_round(self):
        result = self.learner.finish_round()
        words = self.learner.pool.labels.decode(result.labels)
        assert [self.labels[row] for row in result.rows.tolist()] == words
        assert result.n_labeled == len(self.labels)
        assert self.learner.sampler.known.keys() == self.labels.keys()

    @rule()
    def go_on_elsewhere(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "learner.pt"
            self.learner.save(path)
            other = self.make()
            other.load(path)
        if self.free:
            rows = self.learner.ask(1).tolist()
            assert other.ask(1).tolist() == rows
            self.asked += rows
        states = [learner.state_dict() | {"seconds": None, "peak_mib": None} for learner in (self.learner, other)]
        for name, value in states[0].items():
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(value, states[1][name]), name
        assert len(other.history) == len(self.learner.history)
        assert other.corrections == self.learner.corrections
        self.learner = other

    @rule()
    def a_state_is_what_was(self):
        state = self.learner.state_dict()
        kept = repr(state)
        if self.labels:
            self.learner.unlabel(sorted(self.labels))
        assert repr(state) == kept
        self.learner.load_state_dict(state, self.learner.history)

    @invariant()
    def labels_are_those_of_the_dictionary(self):
        pool = self.learner.pool
        rows = pool.labeled.nonzero().squeeze(1)
        words = pool.labels.decode(pool.targets[rows])
        assert dict(zip(rows.tolist(), words, strict=True)) == self.labels
        assert set(pool.skipped.nonzero().squeeze(1).tolist()) == self.skipped
        assert set(pool.candidates.nonzero().squeeze(1).tolist()) == self.open_rows
        assert self.learner.asked.tolist() == self.asked

    @invariant()
    def the_sampler_knows_no_other_labels(self):
        targets = self.learner.pool.targets.tolist()
        assert all(targets[row] == label for row, label in self.learner.sampler.known.items())

    @invariant()
    def records_and_corrections_come_to_the_labels(self):
        learner, known = self.learner, {}
        corrections = list(learner.corrections)
        for number in range(len(learner.history) + 1):
            for correction in [c for c in corrections if c.round == number]:
                known[correction.row] = correction.after
            if number < len(learner.history):
                result = learner.history[number]
                known |= zip(result.rows.tolist(), learner.pool.labels.decode(result.labels), strict=True)
        told_since = set(learner.state_dict()["bought"])
        assert all(self.labels.get(row) == word for row, word in known.items() if row not in told_since)

    @invariant()
    def people_at_odds_are_listed(self):
        at_odds = [r for r, said in self.votes.items() if len({word for word in said.values() if word}) > 1]
        found = self.learner.disagreements()
        assert [one.row for one in found] == sorted(at_odds)
        assert all(one.labels == self.votes[one.row] and one.label == self.labels.get(one.row) for one in found)


TestLabelsInADictionary = LabelsInADictionary.TestCase
TestLabelsInADictionary.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
