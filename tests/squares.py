"""A benchmark without a model, to see how benchmarks are run."""

from modeling_vlkd.evaluation.report import Report


class Squares:
    """Squares numbers, the last ones first, and notes what was asked.

    Args:
        fails_at: the position at which it is interrupted.
    """

    task = "squares"

    def __init__(self, count: int, fails_at: int | None = None):
        self.ids, self.fails_at = [f"n{number}" for number in range(count)], fails_at
        self.asked: list[list[int]] = []

    def order(self):
        return range(len(self.ids))[::-1]

    def predict(self, model, positions):
        if self.fails_at in positions:
            raise KeyboardInterrupt
        self.asked.append(list(positions))
        return [{"square": position**2, "said": "é\n\u2028"} for position in positions]

    def report(self, rows, seed):
        return Report(self.task, len(rows), float(sum(row["square"] for row in rows)))
