"""Response conditioning: a base whose template says before each reply how it was received, and asks for a good one.

Bad replies are then learned too, behind the word that names them, instead of only being pushed away: what the model
knows of them stays out of what it is asked for. It is a matter of the base's folder alone: learner and nodes read
`conditions.json`, vLLM the chat template beside it; the template's digest is part of a base's identity, so that a node
refuses a version that was trained behind other words. Torch-free.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

CONDITIONS_FILE = "conditions.json"
"""In a base's folder: {"good": text, "bad": text}; absent, nothing stands before a reply."""

GOOD = "Good answer:"
BAD = "Bad answer:"

_WRAPPER = (
    "{{% set asked = {{'role': 'system', 'content': {good}}} %}}{{% set ns = namespace(out=[]) %}}"
    "{{% for m in messages %}}{{% if m['role'] == 'assistant' %}}{{% set ns.out = ns.out + [asked] %}}{{% endif %}}"
    "{{% set ns.out = ns.out + [m] %}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{% set ns.out = ns.out + [asked] %}}{{% endif %}}"
    "{{% set messages = ns.out %}}"
)
"""Put before any base's own template; it adds the system messages that `learner.adapter.chat.conditioned` writes."""


def condition(base: Path, out: Path, good: str = GOOD, bad: str = BAD) -> None:
    """Copy a base's folder to `out` with conditions. Raises ValueError if it has some or no template, OSError."""
    if (base / CONDITIONS_FILE).exists():
        raise ValueError(f"base {str(base)!r} is conditioned already")
    template = _template(base)
    if not template:
        raise ValueError(f"base {str(base)!r} has no chat template")
    shutil.copytree(base, out)
    (out / "chat_template.jinja").write_text(_WRAPPER.format(good=json.dumps(good)) + template)
    (out / CONDITIONS_FILE).write_text(json.dumps({"good": good, "bad": bad}) + "\n")


def _template(base: Path) -> str:
    path = base / "chat_template.jinja"
    if path.exists():
        return path.read_text()
    return str(json.loads((base / "tokenizer_config.json").read_text()).get("chat_template") or "")
