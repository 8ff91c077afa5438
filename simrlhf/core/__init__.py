"""Numerics, random streams, linear algebra, statistics, links and argument checks."""
