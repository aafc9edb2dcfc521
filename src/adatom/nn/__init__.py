"""Tensor operators that architectures are built from; nothing here knows what an atom is."""
