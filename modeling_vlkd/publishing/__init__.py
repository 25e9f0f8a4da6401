"""Make a repository that anybody can load: the origin of a model, its card, checks, and the push to the Hub.

May import the model.
"""
