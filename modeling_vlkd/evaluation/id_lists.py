"""Name ids in a message, few enough to be read."""

from collections.abc import Collection
from itertools import islice


MOST_NAMED = 5


def name_ids(ids: Collection[object]) -> str:
    """List ids, at most five of them, and how many more there are: "3, 5, 8, 13, 21 and 2 more"."""
    named = ", ".join(str(each) for each in islice(ids, MOST_NAMED))
    return named if len(ids) <= MOST_NAMED else f"{named} and {len(ids) - MOST_NAMED} more"
