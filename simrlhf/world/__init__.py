"""Synthetic truths: spectra, reward vectors, feature laws."""

from simrlhf.world.config import WorldConfig
from simrlhf.world.generation import World, make_world

__all__ = ["World", "WorldConfig", "make_world"]
