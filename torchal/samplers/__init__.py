"""Query strategies: one file and one class each, found by name in `from_name`.

They bind settings to the math of `torchal.functional` and have none of their own.
"""

import re
from collections.abc import Callable

from torchal.errors import ConfigError
from torchal.samplers.alfa_mix import AlfaMix as AlfaMix
from torchal.samplers.badge import Badge as Badge
from torchal.samplers.bait import Bait as Bait
from torchal.samplers.bald import BALD as BALD
from torchal.samplers.bandit import Bandit as Bandit
from torchal.samplers.bandit import bandit_discrete, bandit_mixture
from torchal.samplers.base import Sampler as Sampler
from torchal.samplers.base import ScoreSampler as ScoreSampler
from torchal.samplers.batch_bald import BatchBALD as BatchBALD
from torchal.samplers.by_group import ByGroup as ByGroup
from torchal.samplers.class_balanced import ClassBalanced as ClassBalanced
from torchal.samplers.cluster_margin import ClusterMargin as ClusterMargin
from torchal.samplers.combine import Combine as Combine
from torchal.samplers.combine import combine_margin
from torchal.samplers.composite import CompositeSampler as CompositeSampler
from torchal.samplers.composite import WrapperSampler as WrapperSampler
from torchal.samplers.contrastive import Contrastive as Contrastive
from torchal.samplers.density_weighted import DensityWeighted as DensityWeighted
from torchal.samplers.drop_query import DropQuery as DropQuery
from torchal.samplers.entropy import Entropy as Entropy
from torchal.samplers.epig import EPIG as EPIG
from torchal.samplers.expected_error_reduction import ExpectedErrorReduction as ExpectedErrorReduction
from torchal.samplers.expected_gradient_length import ExpectedGradientLength as ExpectedGradientLength
from torchal.samplers.facility_location import FacilityLocation as FacilityLocation
from torchal.samplers.glister import Glister as Glister
from torchal.samplers.graph_cut import GraphCut as GraphCut
from torchal.samplers.graph_density import GraphDensity as GraphDensity
from torchal.samplers.hierarchical import Hierarchical as Hierarchical
from torchal.samplers.hierarchical_kmeans import HierarchicalKMeans as HierarchicalKMeans
from torchal.samplers.informative_diverse import InformativeDiverse as InformativeDiverse
from torchal.samplers.k_center import KCenterGreedy as KCenterGreedy
from torchal.samplers.lcmd import LCMD as LCMD
from torchal.samplers.least_confidence import LeastConfidence as LeastConfidence
from torchal.samplers.log_det import LogDet as LogDet
from torchal.samplers.margin import Margin as Margin
from torchal.samplers.margin_cluster_mean import MarginClusterMean as MarginClusterMean
from torchal.samplers.max_det import MaxDet as MaxDet
from torchal.samplers.max_dist import MaxDist as MaxDist
from torchal.samplers.max_herding import MaxHerding as MaxHerding
from torchal.samplers.mixture import Mixture as Mixture
from torchal.samplers.power_bald import PowerBALD as PowerBALD
from torchal.samplers.prob_cover import ProbCover as ProbCover
from torchal.samplers.query_by_committee import QueryByCommittee as QueryByCommittee
from torchal.samplers.saturated_coverage import SaturatedCoverage as SaturatedCoverage
from torchal.samplers.seals import Seals as Seals
from torchal.samplers.similar import Similar as Similar
from torchal.samplers.simulate import SimulateBatch as SimulateBatch
from torchal.samplers.simulate import simulate_batch_best_sim, simulate_batch_frequency, simulate_batch_mixture
from torchal.samplers.softmax_bald import SoftmaxBALD as SoftmaxBALD
from torchal.samplers.softrank_bald import SoftrankBALD as SoftrankBALD
from torchal.samplers.sub_pool import SubPool as SubPool
from torchal.samplers.switch import Switch as Switch
from torchal.samplers.switch import typiclust_then_margin
from torchal.samplers.typiclust import TypiClust as TypiClust
from torchal.samplers.uncertainty_herding import UncertaintyHerding as UncertaintyHerding
from torchal.samplers.uniform import Uniform as Uniform

DEFAULT_MIXTURE = "margin-0.5-uniform-0.5"
"""What `mixture` is by name alone."""

_PLAYGROUND_MIXTURE = "mixture_of_samplers"
_PREFIX = rf"(?:(?:{_PLAYGROUND_MIXTURE}|mixture)-(?=[A-Za-z]))?"
_PART = r"([A-Za-z]\w*)-([0-9.]+(?:[eE][-+]?[0-9]+)?)"


def mixture_from_spec(spec: str) -> Mixture:
    """Return the mixture that the Active Learning Playground's pattern names: NAME-WEIGHT-NAME-WEIGHT-...

    Args:
        spec: the pattern, with or without `mixture_of_samplers-` or `mixture-` before it. The members have their
            default settings.

    Raises:
        ConfigError: the text has not this form, names an unknown sampler, or its weights do not sum to 1.

    Example:
        >>> mixture_from_spec("margin-0.33-informative_diverse-0.33-uniform-0.34").names
        ['Margin', 'InformativeDiverse', 'Uniform']
    """
    parts = _parts(spec)
    return Mixture([from_name(name) for name, _ in parts], weights=[weight for _, weight in parts])


def normal_spec(spec: str) -> str:
    """Return the one form of all patterns that name the same mixture: full names, plain weights, no prefix.

    Args:
        spec: a pattern; see `mixture_from_spec`.

    Raises:
        ConfigError: the text has not the form of a pattern.

    Example:
        >>> normal_spec("mixture_of_samplers-kcenter-.50-uniform-0.5")
        'k_center-0.5-uniform-0.5'
    """
    return "-".join(f"{full_name(name)}-{weight:.12g}" for name, weight in _parts(spec))


def is_mixture(name: object) -> bool:
    """Tell whether a name has the form of a mixture's pattern; see `mixture_from_spec`.

    Example:
        >>> is_mixture("margin-0.5-uniform-0.5"), is_mixture("my-sampler")
        (True, False)
    """
    return isinstance(name, str) and bool(re.fullmatch(f"{_PREFIX}{_PART}(-{_PART})*", name))


def _parts(spec: str) -> list[tuple[str, float]]:
    if not is_mixture(spec):
        raise ConfigError(f"a mixture is NAME-WEIGHT-NAME-WEIGHT-..., as {DEFAULT_MIXTURE}; got {spec!r}")
    try:
        return [(name, float(weight)) for name, weight in re.findall(_PART, re.sub(f"^{_PREFIX}", "", spec))]
    except ValueError as error:
        raise ConfigError(f"the weights of a mixture are numbers, got {spec!r}: {error}") from error


def _default_mixture() -> Mixture:
    return mixture_from_spec(DEFAULT_MIXTURE)


_BY_NAME: dict[str, Callable[[], Sampler]] = {
    "alfa_mix": AlfaMix,
    "badge": Badge,
    "bait": Bait,
    "bald": BALD,
    "bandit_discrete": bandit_discrete,
    "bandit_mixture": bandit_mixture,
    "batch_bald": BatchBALD,
    "by_group": ByGroup,
    "class_balanced": ClassBalanced,
    "cluster_margin": ClusterMargin,
    "combine": combine_margin,
    "contrastive": Contrastive,
    "density_weighted": DensityWeighted,
    "drop_query": DropQuery,
    "entropy": Entropy,
    "epig": EPIG,
    "expected_error_reduction": ExpectedErrorReduction,
    "expected_gradient_length": ExpectedGradientLength,
    "facility_location": FacilityLocation,
    "glister": Glister,
    "graph_cut": GraphCut,
    "graph_density": GraphDensity,
    "hierarchical": Hierarchical,
    "hierarchical_kmeans": HierarchicalKMeans,
    "informative_diverse": InformativeDiverse,
    "k_center": KCenterGreedy,
    "lcmd": LCMD,
    "least_confidence": LeastConfidence,
    "log_det": LogDet,
    "margin": Margin,
    "margin_cluster_mean": MarginClusterMean,
    "max_det": MaxDet,
    "max_dist": MaxDist,
    "max_herding": MaxHerding,
    "mixture": _default_mixture,
    "power_bald": PowerBALD,
    "prob_cover": ProbCover,
    "query_by_committee": QueryByCommittee,
    "saturated_coverage": SaturatedCoverage,
    "seals": Seals,
    "similar": Similar,
    "simulate_batch_best_sim": simulate_batch_best_sim,
    "simulate_batch_frequency": simulate_batch_frequency,
    "simulate_batch_mixture": simulate_batch_mixture,
    "softmax_bald": SoftmaxBALD,
    "softrank_bald": SoftrankBALD,
    "sub_pool": SubPool,
    "switch": typiclust_then_margin,
    "typiclust": TypiClust,
    "uncertainty_herding": UncertaintyHerding,
    "uniform": Uniform,
}

_ALIASES = {"kcenter": "k_center", _PLAYGROUND_MIXTURE: "mixture"}  # names of the Active Learning Playground


def names() -> list[str]:
    """Return the names that `from_name` knows, sorted."""
    return sorted(_BY_NAME)


def full_name(name: str) -> str:
    """Return the name under which a sampler is listed, given that or an alias; any other name as it is.

    Example:
        >>> full_name("kcenter")
        'k_center'
    """
    return _ALIASES.get(name, name)


def names_on_ranks() -> list[str]:
    """Return the names of the samplers that can pick from rows on several ranks (`Sampler.on_ranks`), sorted.

    Example:
        >>> "k_center" in names_on_ranks(), "bait" in names_on_ranks()
        (True, False)
    """
    return sorted(name for name, make in _BY_NAME.items() if getattr(make, "on_ranks", False))


def from_name(name: str) -> Sampler:
    """Return the sampler of this name, or of an alias of it, with its default settings.

    A name with weights, NAME-WEIGHT-NAME-WEIGHT-..., is a mixture; see `mixture_from_spec`.

    Raises:
        ConfigError: there is none of this name; the message lists those there are.

    Example:
        >>> from_name("margin")
        Margin(on='auto')
    """
    name = full_name(name)
    if is_mixture(name) or str(name).startswith(f"{_PLAYGROUND_MIXTURE}-"):
        return mixture_from_spec(name)
    if name not in _BY_NAME:
        raise ConfigError(
            f"no sampler is named {name!r}; there are {', '.join(names())}, and mixtures such as {DEFAULT_MIXTURE}"
        )
    return _BY_NAME[name]()
