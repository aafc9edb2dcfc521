"""adatom: train, check and run machine-learned interatomic potentials.

    import adatom
    from adatom.train.run import train

    train(adatom.TrainConfig.load("config.yaml"))          # -> run folder
    potential = adatom.load("model.adatom")                # -> Potential
    atoms.calc = adatom.Calculator("model.adatom")         # an ASE calculator
    adatom.verify(potential).passed                        # the contract every potential must keep
    adatom.relax(atoms, "model.adatom")
    adatom.write_report("runs/demo")

Names are imported when they are first used: ``import adatom`` itself is light. None may be called as a folder is
(``train``, ``data``): the folder takes its place as soon as anything in it is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adatom.compile import compiled as compiled
    from adatom.compile import load as load
    from adatom.errors import AdatomError as AdatomError
    from adatom.model_file import info as info
    from adatom.model_file import save as save
    from adatom.potential import Potential as Potential
    from adatom.report import write_report as write_report
    from adatom.sim.calculator import Calculator as Calculator
    from adatom.sim.committee import Committee as Committee
    from adatom.sim.relax import relax as relax
    from adatom.testing import verify as verify
    from adatom.train.config import TrainConfig as TrainConfig

_HOMES = {
    "AdatomError": "errors",
    "Calculator": "sim.calculator",
    "Committee": "sim.committee",
    "Potential": "potential",
    "TrainConfig": "train.config",
    "compiled": "compile",
    "info": "model_file",
    "load": "compile",
    "relax": "sim.relax",
    "save": "model_file",
    "verify": "testing",
    "write_report": "report",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adatom' has no attribute '{name}'")
    return getattr(import_module(f"adatom.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
