"""Synthetic truths: spectra, reward vectors, feature laws, decision problems."""

from simrlhf.world.behaviours import Behaviours
from simrlhf.world.config import WorldConfig
from simrlhf.world.decision_config import DecisionConfig
from simrlhf.world.generation import World, make_world
from simrlhf.world.mdp import MDP

__all__ = ["MDP", "Behaviours", "DecisionConfig", "World", "WorldConfig", "make_world"]
