"""A step as the draw log keeps it, so that a killed line takes the same one again; `Feed.logged` reads it."""

from __future__ import annotations

from typing import Any

from learner.feed import Feed, Plan


def log_entry(run: int, plan: Plan, feed: Feed) -> dict[str, Any]:
    """A step as the draw log keeps it: no text, only names, windows and references, and what waits behind it."""
    return {"run": run, "step": plan.step, "rows": _rows(plan), **feed.position()}


def _rows(plan: Plan) -> list[dict[str, Any]]:
    rows, windows = list[dict[str, Any]](), dict[tuple[str, int], int]()
    for document in plan.documents:
        key, seed = document.drawn.key, document.drawn.seed
        handle = plan.handles.get(key)
        window = windows.get((key, seed), 0)
        windows[key, seed] = window + 1
        rows.append({
            "component": document.drawn.component, "key": key, "window": window,
            "handle": None if handle is None else [handle.slot, handle.seq, handle.lease],
            "references": [reply.reference for reply in document.replies], "seed": seed,
        })  # fmt: skip
    return rows
