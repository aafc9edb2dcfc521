"""The contract that every potential must keep, shipped so that any model can be put to it."""

from __future__ import annotations

from adatom.testing.verify import Check, Verification, verify

__all__ = ["Check", "Verification", "verify"]
