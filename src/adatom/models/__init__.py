"""Architectures; ``MODELS`` lists them by the word that configurations and model files use."""

from adatom.models.mlanet import MLANet, MLANetConfig

MODELS = {"mlanet": MLANet}
ModelConfig = MLANetConfig

__all__ = ["MODELS", "MLANet", "ModelConfig"]
