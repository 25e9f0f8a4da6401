"""The error of evaluation."""


class EvaluationError(ValueError):
    """Files that cannot be evaluated as they are; with the ids at fault and the remedy."""
