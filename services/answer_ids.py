"""An answer's id names the version that gave it, so that it can be explained without any index."""

from __future__ import annotations

import re

_ANSWER = re.compile(r"ans-(?P<version>.+)-(?P<job>[0-9a-f]{32})")


def answer_id(version: str, job: str) -> str:
    """The id of what `version` answered in the turn `job` (32 hex digits)."""
    return f"ans-{version}-{job}"


def job_of(answer: str) -> str:
    """The turn of an answer."""
    return answer.rpartition("-")[2]


def version_of(answer: str) -> str | None:
    """The version that gave an answer; None where this is no answer's id."""
    found = _ANSWER.fullmatch(answer)
    return found["version"] if found else None
