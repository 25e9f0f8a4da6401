"""Make a VLKD out of any CLIP and any BART, in the formats that they are published in, and prove it equal to both.

May import the model, publishing and evaluation.
"""
