"""What a missing package is called, and that nothing else is mistaken for one."""

import pytest

from diffusion_core.extras import needing


def test_the_missing_package_and_the_extra_that_brings_it_are_named():
    with pytest.raises(ModuleNotFoundError, match=r'^the oracle needs delphi_absent: pip install "diffusion-core\[train\]"$') as caught:
        with needing("the oracle", extra="train"):
            import delphi_absent.pythia  # noqa: F401
    assert caught.value.name == "delphi_absent" and isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_is_there_but_lacks_a_name_is_not_called_missing():
    with pytest.raises(ImportError, match="cannot import name 'absent'") as caught:
        with needing("the oracle", extra="train"):
            from math import absent  # noqa: F401
    assert not isinstance(caught.value, ModuleNotFoundError)
