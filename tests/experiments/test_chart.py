import pytest

from experiments import chart
from tests import killed_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        config = {"names": {"sampler": "drift", "model": "means"}, "seed": seed}
        killed_run.run(folder / f"seed={seed}", seed=seed, config=config)
    return folder


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_draws_run_folders(suffix, runs, tmp_path, capsys):
    out = tmp_path / f"chart.{suffix}"
    assert chart.main([str(runs), "--out", str(out), "--metric", "log_loss", "--part", "validation"]) == 0
    assert out.stat().st_size > 1000
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "auc"], "no test 'auc'; it has accuracy, log_loss"),
        (["--by", "planet"], "no 'planet' to group by; it has sampler, model"),
        (["--out", "chart.bmp"], ".pdf, .png, .svg"),
    ],
)
def test_says_what_is_wrong_in_one_line(arguments, message, runs, capsys):
    assert chart.main([str(runs), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_runs(tmp_path, capsys):
    assert chart.main([str(tmp_path)]) == 2
    assert f"there is no run below {tmp_path}" in capsys.readouterr().err
    assert chart.main([str(tmp_path / "none")]) == 2
