"""What a strategy reads and needs, found out by asking it: by what models it accepts, and what it looks at."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import torch

from make_pages.plane import BATCH, N_CLASSES, PlaneModel, make_plane
from torchal.errors import CapabilityError
from torchal.pool import Pool
from torchal.protocols import HasDecisionFunction, HasLastLayer, HasPosterior, HasProbabilities
from torchal.samplers import CompositeSampler, Sampler

WORDS: dict[type, tuple[str, str]] = {
    HasDecisionFunction: ("decision values", "`decision_function`"),
    HasProbabilities: ("class probabilities", "`predict_proba`"),
    HasLastLayer: ("a linear last layer", "`last_layer`"),
    HasPosterior: ("posterior draws", "`sample_log_probs`"),
}
"""What a model's capability is called, and by which method it has it."""

_MANY = 10_000  # labels; nothing changes its ways later than that


class Needs(NamedTuple):
    """What a strategy asks for.

    Attributes:
        models: sets of capabilities, each of which alone is enough; one empty set where no model is looked at.
        from_labels: the number of labels from which on it reads a model; None where it never does.
        reads: names of what it looks at in a view, as "features".
        clones: whether it fits copies of the model.
        validation: whether there must be a validation part.
        learns: whether it learns from the labels of each batch.
        waits: whether it has to know a batch's labels before it picks the next.
    """

    models: list[frozenset[type]]
    from_labels: int | None
    reads: frozenset[str]
    clones: bool
    validation: bool
    learns: bool
    waits: bool


def needs_of(sampler: Sampler, pictured: Sampler) -> Needs:
    """Return what a sampler needs; `pictured` is one of its kind that can pick rows of the plane."""
    clonable, plain = _models_accepted(sampler, clonable=True), _models_accepted(sampler, clonable=False)
    return Needs(
        models=clonable,
        from_labels=_first_with_model(sampler),
        reads=frozenset().union(*(_looked_at(part) for part in _parts(pictured))),
        clones=plain != clonable,
        validation=sampler.needs_validation,
        learns=any(type(part).observe not in (Sampler.observe, CompositeSampler.observe) for part in _parts(sampler)),
        waits=not sampler.picks_ahead,
    )


def _parts(sampler: Sampler) -> Iterator[Sampler]:
    """Yield a sampler and all that it is made of."""
    yield sampler
    if isinstance(sampler, CompositeSampler):
        for member in sampler.members:
            yield from _parts(member)


def _models_accepted(sampler: Sampler, *, clonable: bool) -> list[frozenset[type]]:
    """Return the smallest sets of capabilities that `check_model` is content with."""
    found: list[frozenset[type]] = []
    for size in range(len(WORDS) + 1):
        for chosen in map(frozenset, combinations(WORDS, size)):
            if not any(smaller <= chosen for smaller in found) and _accepts(sampler, chosen, clonable=clonable):
                found.append(chosen)
    return found


def _accepts(sampler: Sampler, capabilities: frozenset[type], *, clonable: bool) -> bool:
    methods = [name for capability in capabilities for name in vars(capability) if not name.startswith("_")]
    names = ["fit", "predict", *methods, *(["get_params", "set_params"] if clonable else [])]
    model = type("Model", (), dict.fromkeys(names, lambda *_: None))()
    try:
        sampler.check_model(model)
    except CapabilityError:
        return False
    return True


def _first_with_model(sampler: Sampler) -> int | None:
    """Return the number of labels from which on a model is read, 0 for always."""
    return next((n for n in range(_MANY) if sampler.needs_model(n)), None)


def _looked_at(sampler: Sampler) -> frozenset[str]:
    """Return what a sampler looks at, by letting it pick rows of the plane."""
    plane = make_plane()
    inputs = plane.inputs.clone()  # or a graph that another sampler has made of them would not be made again
    pool = Pool.unlabeled(inputs, n_classes=N_CLASSES).with_labels(plane.start, plane.truth[plane.start])
    model = PlaneModel().fit(plane.inputs[plane.start], plane.truth[plane.start])
    view = pool.view(model, generator=torch.Generator().manual_seed(0), validation=plane.validation)
    sampler.select(view, BATCH)
    return frozenset(view.outputs)


def short_needs(needs: Needs) -> str:
    """Return what a strategy needs in a few words."""
    if needs.from_labels is None and not any(needs.models):
        return "reads no model"
    parts = [" or ".join(" and ".join(sorted(_called(models))) for models in needs.models if models) or "any model"]
    if needs.from_labels:
        parts.append(f"from {needs.from_labels} labels on")
    return ", ".join([*parts, *(["a validation part"] if needs.validation else [])])


def _called(models: frozenset[type]) -> list[str]:
    return [WORDS[capability][0] for capability in models]


def list_needs(needs: Needs) -> list[str]:
    """Return what a strategy needs, in sentences."""
    lines = [_about_model(needs)]
    if needs.clones:
        lines.append("A model that can be cloned, since copies of it are fitted: any with scikit-learn's `get_params`.")
    if "features" in needs.reads:
        lines.append("It looks at features: the model's embedding (`transform`) where it has one, else the inputs.")
    if "flat_inputs" in needs.reads:
        lines.append("It looks at the inputs themselves, whatever the model makes of them.")
    if needs.validation:
        lines.append("A validation part with labels: it looks at the model's accuracy there.")
    if needs.learns:
        lines.append(
            "It learns from the labels of each batch. {py:class}`torchal.ActiveLearner` and "
            "{py:class}`torchal.Trainer` tell it by themselves; in a loop of your own call `tell` after each `select`."
        )
    if needs.waits:
        lines.append("The labels of a batch must be there before it picks the next one.")
    return lines


def _about_model(needs: Needs) -> str:
    """Return which model is needed, and from when on."""
    choices = [
        " and ".join(f"{WORDS[capability][0]} ({WORDS[capability][1]})" for capability in WORDS if capability in models)
        for models in needs.models
        if models
    ]
    if needs.from_labels is None and not choices:
        return "No model and no label: it can pick the very first batch."
    model = f"A model with {', or '.join(choices)}." if choices else "Any model that predicts classes."
    if needs.from_labels is None:
        return f"No model and no label for the first batch. Later: {model[0].lower()}{model[1:]}"
    if needs.from_labels:
        before = f"No model and no label until there are {needs.from_labels} labels."
        return f"{before} From then on: {model[0].lower()}{model[1:]}"
    return f"{model} Until labels of two classes are there to fit it on, rows are drawn at random."
