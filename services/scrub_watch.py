"""Watch over the scrubber in its own process: synthetic turns planted in front of it, on a thread of their own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

from streams.scrub.audit import Canaries
from streams.scrub.config import ScrubConfig
from streams.scrub.identity import Keys


def watch(
    config: ScrubConfig, keys: Keys, planted: Callable[[int, int], None], stop: threading.Event,
    caught: Callable[[BaseException], None],
) -> None:  # fmt: skip
    """Start planting a conversation every `canary_every_s` seconds; `planted` gets values masked and survived."""
    if config.canary_every_s:
        work = partial(_plant, config, keys, planted, stop, caught)
        threading.Thread(target=work, daemon=True, name="canaries").start()


def _plant(
    config: ScrubConfig, keys: Keys, planted: Callable[[int, int], None], stop: threading.Event,
    caught: Callable[[BaseException], None],
) -> None:  # fmt: skip
    canaries, rng = Canaries(config, keys), random.SystemRandom()
    while not stop.wait(config.canary_every_s):
        try:
            planted(*canaries.run(rng))
        except Exception as error:  # noqa: BLE001 - a broken watch must not end the worker
            caught(error)
