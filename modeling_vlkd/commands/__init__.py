"""The command `vlkd`, with one thin file for each subcommand.

May import the model, publishing, evaluation, trainers, conversion and miniature. Nothing imports it, and `vlkd --help`
has to answer without torch.
"""
