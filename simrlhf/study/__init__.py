"""Experiments: grids, runner, store, figures, real data, and what the commands do."""

from simrlhf.study.results import load_results

__all__ = ["load_results"]
