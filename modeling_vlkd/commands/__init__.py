"""The command `vlkd`, a thin file for each subcommand.

May import every room; nothing imports it. `vlkd --help` has to answer without torch.
"""
