"""The tagger: what it is made of, that it can be rebuilt, and what it costs to load."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from streams.scrub import lanes, names
from streams.scrub.building import reading
from streams.scrub.building import train as building
from streams.scrub.building.lexicon import DATA
from streams.scrub.building.reading import Turn
from streams.scrub.building.weights import BATCH_SCALE, packed
from streams.scrub.names import CACHE_WORDS, Tagger
from streams.scrub.network import unpacked
from streams.scrub.network_features import GLUED, HIDDEN, TOKEN
from streams.scrub.normalise import normalise
from streams.scrub.spans import Span


def tag(text: str) -> list[Span]:
    """The names of a text."""
    return names.tag(text, text.split(" "))


MODEL = DATA / "tagger.bin.gz"


def test_names_tags_people_and_not_things() -> None:
    """Names in plain sentences, in any case; brands, places and products stay."""
    text = "Sven Hedlund told ines okafor that the Samsung phone in Berlin works"
    assert [text[a:b] for a, b, _ in tag(text)] == ["Sven Hedlund", "ines okafor"]
    assert tag("the Netflix app on my Samsung TV crashes every Monday in London") == []
    assert tag("") == []


def test_names_joins_initials_and_particles() -> None:
    """A name is one span, with what stands inside it."""
    text = "Yesterday Ludwig K. van der Meer called"
    assert [text[a:b] for a, b, _ in tag(text)] == ["Ludwig K. van der Meer"]


def test_names_model_is_small_and_plain() -> None:
    """Less than two megabytes without pickle, and the card names the very bytes that are shipped."""
    card = json.loads((DATA / "tagger.card.json").read_text())
    raw = MODEL.read_bytes()
    assert len(raw) < 2_000_000
    assert card["sha256"] == hashlib.sha256(raw).hexdigest()
    assert card["sources"]


def test_names_word_cache_is_bounded() -> None:
    """Any number of made-up words leaves the cache below its limit."""
    for i in range(0, CACHE_WORDS + 2_000, 500):
        tag(" ".join(f"Q{chr(97 + j % 26)}{'x' * (j % 7)}{i + j}z".replace("0", "o") for j in range(500)))
    assert len(names._tokens) <= CACHE_WORDS


def test_names_loads_no_learning_library() -> None:
    """Scrubbing in a fresh interpreter imports neither torch nor any other library to learn with, numpy aside."""
    code = "import sys; from streams.scrub import find; find('my name is Ines Okafor'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "scipy", "sklearn"} & set(loaded)


TURNS = [
    Turn(["hello", ",", "i", "am", "Ines", "Okafor"], [0, 0, 0, 0, 1, 1], [0] * 6),
    Turn(["Berlin", "called", GLUED + ",", "xqorl", "paid"], [0, 0, 0, 1, 0], [0] * 5),
    Turn(["the", HIDDEN + "Samsung", "phone", "-1", "Zubrowa"], [0, 0, 0, 0, -1], [0] * 5),
]


@pytest.fixture
def small() -> Iterator[building.Corpus]:
    """A corpus of three turns, all of whose features count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "MIN_COUNT", 1)
        yield building.corpus(TURNS)


def _built(found: building.Corpus) -> bytes:
    *_, (_, weights) = building.train(found, epochs=3)
    return packed(found.features, weights)


def test_names_scores_are_what_training_computes(small: building.Corpus) -> None:
    """The sums in long integers are those of the trainer's forward pass on the same weights."""
    raw = _built(small)
    _, weights = unpacked(raw)
    bias = float(weights["out_bias"][0])
    trained = building.forward(weights, small, np.arange(2)).scores
    surfaces, style = TURNS[0].surfaces, int(small.style[0])
    scores = Tagger(raw).scored(surfaces, style, follows={5})
    assert list(scores) == [4, 5]
    assert [nats + bias for nats in scores.values()] == pytest.approx(trained.tolist(), abs=0.1)


def test_names_gradient_is_that_of_its_loss(small: building.Corpus) -> None:
    """A small step of the steepest weight of each array changes the loss as its gradient says."""
    weights = building.start(small, np.random.default_rng(1))
    chosen = np.arange(len(small.labels))
    keep = building.kept(len(chosen), np.random.default_rng(2))
    _, back = building.gradients(weights, small, chosen, keep)
    for name, gradient in back.items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        losses = []
        for step in (2e-3, -2e-3):
            weights[name][at] += step
            losses.append(building.gradients(weights, small, chosen, keep)[0])
            weights[name][at] -= step
        slope = (losses[0] - losses[1]) / 4e-3 * BATCH_SCALE
        assert slope == pytest.approx(gradient[at], rel=0.1, abs=0.02), name


def test_names_build_gives_the_same_bytes(small: building.Corpus) -> None:
    """Two builds of the same turns are equal, byte for byte."""
    assert _built(small) == _built(small)


@pytest.mark.parametrize("speaking_for", [0, 3, 8])
def test_names_sums_in_one_integer_are_those_of_their_numbers(speaking_for: int) -> None:
    """Added as integers, rectified and summed: the same as with arrays, whatever the signs."""
    rows = np.random.default_rng(speaking_for).normal(0, 20, (12, 8))
    hidden = np.maximum(rows.sum(0), 0)
    expected = hidden[:speaking_for].sum() - hidden[speaking_for:].sum()
    nats = lanes.output(speaking_for, 8).nats(sum(lanes.packed(rows))) / lanes.UNIT
    assert nats == pytest.approx(expected, abs=0.1)


def test_names_sums_stay_in_their_place() -> None:
    """Sixteen numbers of any size are cut so that none of their sums touches the one beside it."""
    sums = sum(lanes.packed(np.full((16, 3), [1e9, -1e9, 0.5])))
    assert lanes.output(1, 3).nats(sums) == 16 * lanes.MOST - 16 * lanes.UNIT // 2


def test_names_training_shares_no_sentence_with_the_labelled_set(data_dir: Path, pii_dir: Path) -> None:
    """No training turn is a turn of the set that measures us."""
    rows = (pii_dir / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    turns = {tuple(TOKEN.findall(normalise(json.loads(row)["text"]).text.lower())) for row in rows}
    shared = {tuple(s.lstrip(GLUED + HIDDEN).lower() for s in turn.surfaces) for turn in _trained(data_dir)} & turns
    assert {turn for turn in shared if len(turn) > 4} == set()


def _trained(data_dir: Path) -> Iterator[Turn]:
    """A tenth of the turns of each kind: all of them take a minute."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("LED", "INSERTED", "PLAIN", "TEMPLATED", "MIXED", "CARRIED", "TECHNICAL", "NAMED"):
            patch.setattr(reading, kind, getattr(reading, kind) // 10)
        yield from chain(reading.examples(data_dir, 1), reading.named(1))


@pytest.mark.parametrize(
    "name",
    [
        "lexicon.txt.gz",
        "tagger.bin.gz",
        "names.txt",
        "words.txt",
        "templates.txt",
        "network.bin.gz",
        "postal.txt",
        "turns.txt",
        "people.txt",
    ],
)
def test_names_data_is_packaged(name: str) -> None:
    """Every source and product of the build lies in the package."""
    assert (DATA / name).stat().st_size > 0
