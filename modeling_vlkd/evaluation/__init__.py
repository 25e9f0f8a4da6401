"""Measure any model: a small protocol, adapters that speak it, benchmarks, and metrics without a model.

May import the model. No trainer in here: trainers call benchmarks.
"""
