"""Make a repository that a stranger can load: where a model comes from, its card, checks, and the push to the Hub.

May import the model.
"""
