"""Comparisons of many users: in memory, from files, and shipped with the package."""

from simrlhf.data.files import load_preferences, load_table, save_table
from simrlhf.data.preferences import Preferences
from simrlhf.data.shipped import load_shipped, shipped_datasets
from simrlhf.data.tables import PairTable

__all__ = [
    "PairTable",
    "Preferences",
    "load_preferences",
    "load_shipped",
    "load_table",
    "save_table",
    "shipped_datasets",
]
