"""What the documentation says to type works."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests import forks
from tests.study.runs import write_sweep

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = ROOT / "docs" / "guides"
EXPERIMENTS = (GUIDES / "experiments.md").read_text()
PAGES = [
    README,
    EXPERIMENTS,
    (ROOT / "docs" / "start.md").read_text(),
    *map(Path.read_text, sorted(ROOT.glob("docs/explanation/*.md"))),
]
SETTINGS = re.search(r"\| setting \| what \|\n(.*?)\n\n", EXPERIMENTS, re.DOTALL)[1]
PLAYGROUND = (GUIDES / "playground.md").read_text()
COMMANDS = re.findall(
    r"^python -m experiments\.run (?!--)(.*?)(?:\s+#.*)?$", "\n".join([*PAGES, PLAYGROUND]), re.MULTILINE
)
TABLE = [
    text.replace("FILE", "a.csv").replace("COLUMN", "label").replace("DIR", "elsewhere")
    for line in PLAYGROUND.splitlines()
    if line.startswith("|")
    for text in re.findall(r"`([^`]+)`", line.split("|")[2])
    if all("=" in word or word == "-m" for word in text.split()) and "--" not in text
]


def composed(overrides):
    """Return the config of the first run that some overrides make; an unknown name or setting is an error."""
    from hydra import compose, initialize_config_dir

    from experiments.names import with_full_names

    overrides = [word for override in overrides for word in with_full_names(override) if word != "-m"]
    from hydra.core.override_parser.overrides_parser import OverridesParser

    first = []
    for override in OverridesParser.create().parse_overrides(overrides):
        value = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
        first.append(override.input_line if value is None else f"{override.get_key_element()}={value}")
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        return compose("config", first)


def run_examples(page, folder):
    """Run the Python blocks of a page one after another, as a program of its own; return what it printed."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    assert code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_one_screen():
    assert len(README.splitlines()) <= 60


def test_the_five_lines_of_the_readme_run(tmp_path):
    assert len(set(re.findall(r"\d+", run_examples(README, tmp_path)))) == 10


def test_the_lines_of_the_first_page_run(tmp_path):
    run_examples((ROOT / "docs" / "index.md").read_text(), tmp_path)


def test_the_start_page_runs_as_it_is_written(tmp_path):
    told = run_examples((ROOT / "docs" / "start.md").read_text(), tmp_path).splitlines()
    assert [line.split()[:2] for line in told[2:]] == [["Margin", "200"], ["Uniform", "200"]]
    assert float(told[2].split()[2]) > float(told[3].split()[2]) > 0.85
    assert (tmp_path / "runs" / "first" / "Margin" / "rounds.jsonl").exists()


def test_the_examples_about_choosing_rows_run_one_after_another(tmp_path):
    told = run_examples((GUIDES / "choose_rows.md").read_text(), tmp_path)
    assert told.startswith("([20, 40, 60, 80, 100], [0.")
    assert (tmp_path / "to_label.csv").exists()
    assert (tmp_path / "to_label.html").exists()
    assert (tmp_path / "runs" / "mine" / "rounds.jsonl").exists()


@pytest.mark.parametrize("name", ["networks", "classical_models"])
def test_the_examples_of_a_guide_run_by_themselves(name, tmp_path):
    run_examples((GUIDES / f"{name}.md").read_text(), tmp_path)


def test_the_python_examples_about_labeling_tools_run_one_after_another(tmp_path):
    page = (GUIDES / "labeling_tools.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    code += "\nassert len(labels) == 3 and len(refused) == 1 and int(pool['picked'].sum()) == 5\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for code in re.findall(r"```python no-run\n(.*?)```", page, re.DOTALL):
        compile(code, "labeling_tools.md", "exec")


def test_the_python_examples_about_many_ranks(tmp_path, monkeypatch):
    page = (GUIDES / "distributed.md").read_text()
    codes = re.findall(r"```python no-run\n(.*?)```", page, re.DOTALL)
    for code in codes:
        compile(code, "distributed.md", "exec")
    (tmp_path / "embedded" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "embedded" / "img_emb" / "img_emb_0.npy", np.random.default_rng(0).normal(size=(30, 4)))
    monkeypatch.chdir(tmp_path)
    names = {}
    small = codes[0].replace('device="cuda", ', "").replace("10_000", "5").replace("to_label = ", "# ")
    exec(small, names)
    assert len(names["picks"].indices) == 5


def test_the_python_examples_about_reports_run(tmp_path):
    write_sweep(tmp_path / "runs")
    code = "\n".join(re.findall(r"```python\n(.*?)```", (GUIDES / "report.md").read_text(), re.DOTALL))
    out = forks.answer(run_code_and_listen, code, tmp_path)
    assert "digits, logistic margin Estimate(mean=0.7" in out
    assert (tmp_path / "report" / "report.html").exists()


def run_code_and_listen(code, folder):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        run_code(code, folder)
    return out.getvalue()


def test_the_python_example_about_data_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", (GUIDES / "data.md").read_text(), re.DOTALL)[1]
    (tmp_path / "answers.csv").write_text(
        "size,label\n" + "".join(f"{i},{'ab'[i % 5 > 2] if i % 4 != 2 else ''}\n" for i in range(36))
    )
    code += "\nassert set(learner.pool.source_rows[rows].tolist()) <= {2, 6, 10, 14, 18, 22, 26, 30, 34}, rows\n"
    code = code.replace("learner.ask(10)", "learner.ask(5)")
    forks.answer(run_code, code, tmp_path)


def test_the_python_examples_about_shards_run(tmp_path):
    page = (GUIDES / "shards.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    code += "\nassert shards.ids([2499, 7]) == ['image2499.jpg', 'image7.jpg']"
    code += "\nassert str(features) == 'FileRows(2500 x 64 of torch.float32 in 3 files)'"
    code += "\nassert (features.shape, shards.shape, logits.shape) == ((2500, 64), (2500, 64), (2500, 10))"
    code += "\nassert [shard.rows for shard in shards.files] == [range(1000), range(1000, 2000), range(2000, 2500)]"
    code += "\nassert (shards.part(1, 4), shards.id_columns) == (slice(625, 1250), ('image_path',))"
    code += "\nassert to_label == [f'image{row}.jpg' for row in picks.indices.tolist()] and len(to_label) == 5\n"
    forks.answer(run_code, code, tmp_path)
    for code in re.findall(r"```python no-run\n(.*?)```", page, re.DOTALL):
        compile(code, "shards.md", "exec")


def run_code(code, folder):
    """Run it as a program of its own, in a folder."""
    os.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def test_there_are_commands_and_a_table():
    assert len(COMMANDS) == 9
    assert len(TABLE) >= 20


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command):
    assert composed([word for word in shlex.split(command) if word != "-m"])


@pytest.mark.parametrize("page", ["distributed.md", "shards.md"])
def test_commands_about_shards_compose(page):
    text = (GUIDES / page).read_text()
    commands = re.findall(r"^(?:python|torchrun --nproc-per-node 8) -m experiments\.run (.*)$", text, re.MULTILINE)
    assert len(commands) == {"distributed.md": 2, "shards.md": 1}[page]
    for command in commands:
        config = composed(shlex.split(command))
        assert (config.data.path, config.data.test_path) == ("embedded", "others")


@pytest.mark.parametrize("text", TABLE)
def test_translations_compose(text):
    words = [word for word in text.split() if word != "schedule=playground"]
    needs_csv = ["data=csv"] if "data.path" in text and "data=" not in text else []
    assert composed(needs_csv + [word for word in words if word != "-m"])


def test_schedule_playground_is_what_the_table_says():
    from omegaconf import OmegaConf

    config = composed(["schedule=playground"])
    assert OmegaConf.to_object(config.schedule)["batch_fraction"] == 0.02
    assert config.start.fraction == 0.02
    assert config.start.how == "playground"


def test_the_default_is_what_the_readme_says():
    config = composed([])
    assert (config.start.n, config.start.min_per_class) == (20, 2)
    assert (config.schedule.batch_size, config.schedule.budget) == (20, 400)


@pytest.mark.parametrize("group", ["data", "model", "sampler", "schedule", "experiment"])
def test_the_table_of_choices_is_complete(group):
    line = next(line for line in EXPERIMENTS.splitlines() if line.startswith(f"| `{group}` |"))
    files = {path.stem for path in (ROOT / "experiments" / "conf" / group).glob("*.yaml")}
    assert set(re.findall(r"`(\w+)`", line.split("|")[2])) == files


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("text", re.findall(r"`([^`]+=[^`]+)`", SETTINGS))
def test_settings_compose(text):
    words = text.split()
    if all("=" in word for word in words):
        assert composed(words)
