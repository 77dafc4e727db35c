"""Query strategies: one file and one class each. They bind settings to the math of `torchal.functional`."""

from torchal.errors import ConfigError
from torchal.samplers.base import Sampler as Sampler
from torchal.samplers.base import ScoreSampler as ScoreSampler
from torchal.samplers.entropy import Entropy as Entropy
from torchal.samplers.graph_density import GraphDensity as GraphDensity
from torchal.samplers.k_center import KCenterGreedy as KCenterGreedy
from torchal.samplers.least_confidence import LeastConfidence as LeastConfidence
from torchal.samplers.margin import Margin as Margin
from torchal.samplers.uniform import Uniform as Uniform

_BY_NAME: dict[str, type[Sampler]] = {
    "entropy": Entropy,
    "graph_density": GraphDensity,
    "k_center": KCenterGreedy,
    "least_confidence": LeastConfidence,
    "margin": Margin,
    "uniform": Uniform,
}

_ALIASES = {"kcenter": "k_center"}  # names of the Active Learning Playground


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


def from_name(name: str) -> Sampler:
    """Return the sampler of this name, or of an alias of it, with its default settings.

    Raises:
        ConfigError: there is none of this name; the message lists those there are.

    Example:
        >>> from_name("margin")
        Margin(on='auto')
    """
    name = full_name(name)
    if name not in _BY_NAME:
        raise ConfigError(f"no sampler is named {name!r}; there are {', '.join(names())}")
    return _BY_NAME[name]()
