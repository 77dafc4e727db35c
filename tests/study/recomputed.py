"""What a report must say, computed from rounds.jsonl once more: by loops, numpy and scipy, and nothing of ours."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats


def read(root, metric="accuracy"):
    """Return the curves of finished runs: {(data, model): {sampler: {seed: (labels, values)}}}."""
    curves = {}
    for file in sorted(Path(root).rglob("rounds.jsonl")):
        config = json.loads((file.parent / "config.yaml").read_text())
        rounds = [json.loads(line) for line in file.read_text().splitlines()]
        names = config["names"]
        by_sampler = curves.setdefault((names["data"], names["model"]), {})
        points = [one["n_labeled"] for one in rounds], [one["test"][metric] for one in rounds]
        by_sampler.setdefault(names["sampler"], {})[config["seed"]] = points
    return curves


def area(points):
    x, y = points
    steps = zip(x, x[1:], y, y[1:], strict=False)
    return sum((right - left) * (low + high) / 2 for left, right, low, high in steps) / (x[-1] - x[0])


def interval(values):
    """Return the mean and Student's 95 % interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values))
    return mean, float(low), float(high)


def holm(p_values):
    """Return corrected p-values: the k-th smallest times the number of those that are not smaller, made to ascend."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, largest = [None] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - place)))
        corrected[i] = largest
    return corrected


def compared(curves):
    """Return {(a, b): (pairs, mean difference of areas, low, high, p after Holm)} over all experiments and seeds."""
    areas = {}
    for experiment, by_sampler in curves.items():
        for sampler, by_seed in by_sampler.items():
            for seed, points in by_seed.items():
                areas.setdefault(sampler, {})[experiment, seed] = area(points)
    found = {}
    for a, b in combinations(areas, 2):
        shared = [key for key in areas[a] if key in areas[b]]
        first, second = ([areas[name][key] for key in shared] for name in (a, b))
        found[a, b] = (shared, first, second)
    p = holm([stats.ttest_rel(first, second).pvalue for _, first, second in found.values()])
    return {
        pair: (len(shared), *interval(np.subtract(first, second)), corrected)
        for (pair, (shared, first, second)), corrected in zip(found.items(), p, strict=True)
    }
