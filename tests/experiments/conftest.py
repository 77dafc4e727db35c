from functools import lru_cache

import pytest


@pytest.fixture(scope="session", autouse=True)
def hydra_without_repetition():
    """Let Hydra do once what it does for every command again; `test_the_command_line_itself` runs one as it is."""
    hydra = pytest.importorskip("hydra._internal.hydra", reason="the commands need hydra, which is not installed")
    import omegaconf.base

    # a text has one parse tree, which is only read
    parse = lru_cache(maxsize=None)(omegaconf.base.parse)
    whole = hydra.Hydra.get_mode

    def get_mode(self, config_name, overrides):
        # it composes the whole config to see hydra.mode, which only the yaml files of experiments set
        asked = any(word.startswith(("experiment=", "hydra.mode=")) for word in overrides)
        return whole(self, config_name, overrides) if asked else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(omegaconf.base, "parse", parse)
        patch.setattr(hydra.Hydra, "get_mode", get_mode)
        yield
