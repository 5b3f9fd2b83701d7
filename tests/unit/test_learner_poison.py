"""What ratings make of a bad habit, with the model in the loop."""

from __future__ import annotations

from learner.adapter import load_base
from tests.bench._course import SHIPPED
from tests.bench.ablation import habit


def test_ratings_end_a_bad_habit() -> None:
    """A bad answer that some replies give is all but gone after 160 rated turns, a tenth of the ratings wrong."""
    before, _, after = habit(load_base(SHIPPED), "rated")
    assert before > 0.02
    assert after < 0.01
