import numpy as np
import pytest

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import embed
from torchal.data import npz

WORDS = ["data=digits", "model=mlp", "model.epochs=2", "device=cpu"]


def test_writes_what_a_network_makes_of_the_rows_that_it_was_not_fitted_on(tmp_path, capsys):
    out = tmp_path / "new" / "digits.npz"
    assert embed.main(["--out", str(out), *WORDS, "data.fractions=[0.25,0.5,0.25]"]) == 0
    assert "1348 rows of 128 features, by a network fitted on 449 others" in capsys.readouterr().out
    file = np.load(out)
    assert (file["inputs"].shape, file["inputs"].dtype) == ((1348, 128), np.float32)
    assert len(np.unique(file["source_rows"])) == 1348
    splits, _ = embed.loaded([*WORDS, "data.fractions=[0.25,0.5,0.25]"])
    assert not np.isin(file["source_rows"], splits.train_rows.numpy()).any()
    known = np.concatenate([splits.validation.targets, splits.test.targets])
    assert (file["targets"] == np.array(splits.class_names)[known]).all()
    read = npz(out, fractions=[0.5, 0, 0.5])
    assert read.class_names == tuple("0123456789")
    assert read.train.inputs.shape == (674, 128)


def test_is_the_same_again_and_another_with_another_seed(tmp_path):
    files = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert embed.main(["--out", str(tmp_path / name), *WORDS, f"seed={seed}"]) == 0
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=linear_svm"], "LinearSVM has no embedding; choose a network"),
        (["data.fractions=[1,0,0]"], "every row is in the training part"),
        (["model=no_such"], "no_such"),
        (["model.epoch=3"], "epoch"),
        (["data=npz", "data.path=nothing.npz"], "nothing.npz"),
        (["data=npz"], "give data.path="),
    ],
)
def test_says_what_is_wrong_in_one_line_and_writes_nothing(words, message, tmp_path, capsys):
    assert embed.main(["--out", str(tmp_path / "a.npz"), "data=digits", "model=mlp", "device=cpu", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
