"""What TensorBoard shows of a sweep in a browser; skipped where there is none."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.report.browser import WHY_SKIPPED, Browser, find_browser
from torchal.runs.aggregates import TableLine, address, write_aggregates
from torchal.runs.curves import LearningCurve
from torchal.statistics.curves import mean_interval

pytestmark = pytest.mark.skipif(find_browser() is None, reason=WHY_SKIPPED)

PATIENCE = 60.0  # seconds
SAMPLERS = ("margin", "entropy", "uniform")
FINALS = {"margin": 0.8125, "entropy": 0.75, "uniform": 0.6875}
SPREAD = np.linspace(-0.0625, 0.0625, 20)[:, None]  # of seeds

# All that is in the page, the insides of its elements too
INSIDE = """
const all = (root, found = []) => {
    for (const element of root.querySelectorAll('*')) {
        found.push(element);
        if (element.shadowRoot) all(element.shadowRoot, found);
    }
    return found;
};
"""


def wait_for(what, *arguments):
    """Return the first answer that is one: a page is drawn when it is drawn."""
    end = time.monotonic() + PATIENCE
    while True:
        answer = what(*arguments)
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what.__name__}{arguments} did not come in {PATIENCE} s")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Serve a sweep of three samplers and twenty seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    curves = {"accuracy": {}, "log_loss": {}}
    table = {}
    for sampler in SAMPLERS:
        values = np.array([[0.5, 0.625, FINALS[sampler]]]) + SPREAD
        for metric, own in (("accuracy", values), ("log_loss", 1 - values)):
            curves[metric][sampler] = LearningCurve(np.array([20, 40, 60]), own, own.mean(0), *mean_interval(own))
        for seed, final in enumerate(values[:, -1]):
            metrics = {"summary/final_accuracy": float(final)}
            table[f"{sampler} seed={seed}"] = TableLine({"sampler": sampler, "seed": seed}, metrics)
    write_aggregates(folder, curves, table=table)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    log = (folder.parent / "log").open("wb")
    command = ["-m", "tensorboard.main", "--logdir", str(folder), "--port", str(number), "--host", "127.0.0.1"]
    server = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log)
    try:

        def runs():
            assert server.poll() is None, (folder.parent / "log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{number}/data/runs", timeout=5) as answer:
                    return len(json.load(answer)) == len(SAMPLERS) + len(table)
            except (urllib.error.URLError, TimeoutError, ConnectionError):
                return False

        wait_for(runs)
        yield number
    finally:
        server.terminate()
        server.wait(10)
        log.close()


@pytest.fixture(scope="module")
def browser():
    started = Browser(find_browser(), hosts=["127.0.0.1"])
    yield started
    started.close()


def show(browser, page, port):
    browser.open("about:blank")  # another page of the same address would only be gone to within it
    browser.open(address(page, port=port).replace("localhost", "127.0.0.1"), height=1400)


def inside(browser, expression):
    return browser.value(f"(() => {{ {INSIDE} return {expression}; }})()")


def selected(browser):
    """Return the names of the runs that are ticked on a page of scalars."""
    boxes = "all(document).filter((e) => e.tagName === 'PAPER-CHECKBOX' && e.id.startsWith('checkbox-') && e.checked)"
    return inside(browser, f"{boxes}.map((e) => e.id.slice('checkbox-'.length))")


def curves(browser, card, title):
    """Return what a chart draws once it draws all samplers: by their names, steps with value, lower and upper."""
    found = inside(
        browser,
        f"""all(document).filter((e) => e.tagName === '{card}' && (e.tag ?? e.title) === '{title}').flatMap((e) =>
            all(e.shadowRoot).filter((e) => e.tagName === 'VZ-LINE-CHART2' && e._chart).flatMap((e) =>
                e._chart.seriesNames.map((name) => [name, (e._chart.name2datasets[name]?.data() ?? []).map(
                    (point) => [point.step, point.scalar, point.lower, point.upper])])))""",
    )
    drawn = {next(sampler for sampler in SAMPLERS if sampler in name): points for name, points in found or ()}
    return drawn if len(drawn) == len(SAMPLERS) and all(len(points) == 3 for points in drawn.values()) else None


class TestScalars:
    def test_all_samplers_are_in_one_chart_and_selected_and_not_smoothed(self, browser, port):
        show(browser, "scalars", port)
        assert sorted(wait_for(selected, browser)) == sorted(SAMPLERS)

        for sampler, points in wait_for(curves, browser, "TF-SCALAR-CARD", "accuracy").items():
            drawn = [(step, round(value, 4)) for step, value, *_ in points]
            assert drawn == [(20, 0.5), (40, 0.625), (60, FINALS[sampler])]
        smoothing = "all(document).filter((e) => e.tagName === 'TF-SMOOTHING-INPUT').map((e) => e.weight)"
        assert inside(browser, smoothing) == [0]


class TestCustomScalars:
    def test_a_metric_is_one_chart_with_the_bands_of_all_samplers(self, browser, port):
        show(browser, "custom_scalars", port)
        assert sorted(wait_for(selected, browser)) == sorted(SAMPLERS)
        titles = "all(document).filter((e) => e.tagName === 'TF-CUSTOM-SCALAR-MARGIN-CHART-CARD').map((e) => e.title)"
        assert wait_for(lambda: inside(browser, titles)) == ["accuracy", "log_loss"]

        drawn = wait_for(curves, browser, "TF-CUSTOM-SCALAR-MARGIN-CHART-CARD", "accuracy")
        half = float(mean_interval(SPREAD)[1][0])
        for sampler, points in drawn.items():
            assert [step for step, *_ in points] == [20, 40, 60]
            final = FINALS[sampler]
            assert points[-1][1:] == pytest.approx([final, final - half, final + half], abs=1e-5)


class TestHParams:
    def test_a_line_for_each_run(self, browser, port):
        show(browser, "hparams", port)

        def text():
            found = inside(browser, "all(document).map((e) => e.shadowRoot ? e.shadowRoot.textContent : '').join(' ')")
            words = re.sub(r"\s+", " ", found or "")
            return words if "~runs/margin seed=19" in words or "groups: 60" in words else None

        shown = wait_for(text)
        assert "summary/final_accuracy" in shown
        assert "Number of matching session groups: 60" in shown
        assert "0.87500" in shown  # the best of margin


class TestTimeSeries:
    def test_the_curves_of_the_samplers_come_first(self, browser, port):
        show(browser, "timeseries", port)

        def body():
            words = browser.value("document.body.innerText") or ""
            return words if "0.8125" in words else None

        shown = wait_for(body)
        assert [name for name in re.findall(r"^(\w+)$", shown, re.MULTILINE) if name in SAMPLERS][:3] == sorted(
            SAMPLERS
        )
        assert "~runs" not in shown  # the address narrows the list
        assert shown.index("accuracy") < shown.index("log_loss")
