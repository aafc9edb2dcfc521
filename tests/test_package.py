"""The front door: what ``import adatom`` offers, and how little it costs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import adatom
from adatom.nn import kernels


def test_every_name_is_what_it_says_whatever_was_imported_before() -> None:
    """A submodule takes the place of a name that is called like it."""
    for module in pkgutil.walk_packages(adatom.__path__, "adatom."):
        if kernels.PRESENT or not module.name.startswith("adatom.nn.kernels."):  # those need triton
            import_module(module.name)
    for name in adatom.__all__:
        found = getattr(adatom, name)
        assert not isinstance(found, ModuleType), name
        assert callable(found)
        assert found.__name__ == name
    assert dir(adatom) == adatom.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Potentials'"):
        adatom.Potentials  # noqa: B018  the look-up is what is tested


def test_importing_the_package_and_the_command_line_brings_no_torch() -> None:
    code = "import sys, adatom, adatom.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
