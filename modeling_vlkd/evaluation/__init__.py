"""Measure any model: a small protocol, adapters that speak it, a file for each benchmark, and metrics without a model.

May import the model. No trainer in here: trainers call benchmarks.
"""
