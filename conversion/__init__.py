"""Take any CLIP and any BART in, in the formats that they are found in, and give a VLKD out that is proven equal.

May import the model, publishing and evaluation.
"""
