"""Settings that make a network of each form of each architecture as small as tests want it."""

from __future__ import annotations

from typing import Any

NARROW: dict[str, dict[str, dict[str, Any]]] = {
    "mlanet": {
        "default": {"l_max": 2, "channels": 8, "heads": 2, "readout": 8},
        "paper": {"l_max": 2, "channels": 8, "heads": 2, "readout": 8},
    },
    "nemp": {
        "default": {"channels": 8, "readout": 8},
        "paper": {"channels": 8, "pair_code": 32, "edge_width": 16, "readout": 16},
    },
    "allscaip": {
        "default": {"channels": 16, "heads": 2, "slot_channels": 8, "readout": 8},
        "paper": {"channels": 16, "heads": 2, "layers": 1, "components": "NeNo"},
    },
}
