"""Settings that make a network of each architecture as small as tests want it."""

from __future__ import annotations

from typing import Any

NARROW: dict[str, dict[str, Any]] = {
    "mlanet": {"l_max": 2, "channels": 8, "heads": 2, "readout": 8},
}
