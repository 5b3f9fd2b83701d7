"""The network: what it reads, that training and reading are one function, that a build can be repeated."""

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pytest

from streams.scrub import find
from streams.scrub.building import network as building
from streams.scrub.building.lexicon import DATA
from streams.scrub.building.reading import Turn
from streams.scrub.building.weights import BATCH_SCALE, packed
from streams.scrub.gate import DIGIT, look
from streams.scrub.network import WIDTH, Network, network, unpacked
from streams.scrub.network_features import GLUED, TOKEN, features_of
from streams.scrub.reader import hinted, read

MODEL = DATA / "network.bin.gz"
TURNS = [
    Turn(["hello", ",", "i", "live", "at", "12", "Oak", "Lane"], [0] * 8, [0] * 5 + [1] * 3),
    Turn(["Ines", "Okafor", "paid", "12", GLUED + "."], [1, 1, 0, 0, 0], [0, 0, 0, -1, 0]),
    Turn(["room", "4", ",", "block", "7", ",", "Lund"], [0] * 6 + [-1], [1] * 7),
]


@pytest.fixture
def small() -> Iterator[building.Corpus]:
    """A corpus of three turns, all of whose features count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "MIN_COUNT", 1)
        patch.setattr(building, "HINTED", 1)
        patch.setattr(building, "HINT_STEPS", 20)
        yield building.corpus(TURNS)


def _built(found: building.Corpus) -> bytes:
    *_, (_, weights) = building.train(found, epochs=3)
    return packed(found.features, {**weights, **building.hints(weights, found)})


def test_network_reads_what_training_computes(small: building.Corpus) -> None:
    """The scores of the packaged form are those of the trainer's forward pass on the same weights."""
    raw = _built(small)
    _, weights = unpacked(raw)
    text = "hello , i live at 12 Oak Lane"
    read_scores = Network(raw).scores(text.split(" "))
    trained = building.forward(weights, small, np.array([1, 0, 2]))
    assert np.allclose(trained.scores[trained.real & (trained.owner == 1)][1:-1], read_scores, atol=1e-4)


def test_network_gradient_is_that_of_its_loss(small: building.Corpus) -> None:
    """A small step of the steepest weight of each array changes the loss as its gradient says."""
    weights = building.start(len(small.features), np.random.default_rng(1))
    _, back = building.gradients(weights, small, np.arange(3))
    for name, gradient in back.items():
        at = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        losses = []
        for step in (2e-3, -2e-3):
            weights[name][at] += step
            losses.append(building.gradients(weights, small, np.arange(3))[0])
            weights[name][at] -= step
        slope = (losses[0] - losses[1]) / 4e-3 * BATCH_SCALE
        assert slope == pytest.approx(gradient[at], rel=0.1, abs=0.02), name


def test_network_build_gives_the_same_bytes(small: building.Corpus) -> None:
    """Two builds of the same turns are equal, byte for byte."""
    assert _built(small) == _built(small)


def test_network_card_names_what_is_shipped() -> None:
    """A file of some hundred kilobytes without pickle, and a card with its digest and its sources."""
    card = json.loads((DATA / "network.card.json").read_text())
    raw = MODEL.read_bytes()
    assert len(raw) < 2_000_000
    assert card["sha256"] == hashlib.sha256(raw).hexdigest()
    assert card["sources"]


def test_network_finds_addresses_of_forms_no_rule_knows() -> None:
    """Parts in any order, in small letters, with words for street that no list holds."""
    for text, place in (
        ("please send it to Zubrowa 14B m 3, Kolwice this time", "Zubrowa 14B m 3, Kolwice"),
        ("no, it's kwartal 7 blok 12 woning 4 paramora", "kwartal 7 blok 12 woning 4 paramora"),
    ):
        start = text.index(place)
        masked = {i for a, b, _ in find(text) for i in range(a, b)}
        missed = [c for i, c in enumerate(place, start) if c.isalnum() and i not in masked]
        assert not missed, text


def test_network_leaves_ordinary_numbers() -> None:
    """Amounts, quantities, sizes and versions are no addresses."""
    for text in ("I ordered 3 pairs of running socks, size 42", "the update to version 14.2 took 20 minutes"):
        assert find(text) == []


def test_network_reads_only_round_what_it_was_pointed_at() -> None:
    """A long turn costs windows round its spots, whose tokens stand where they stood in the turn."""
    text = "so " * 200 + "i live at 12 Oak Lane, Lund " + "and " * 200
    seen = look(text)
    spots = hinted(seen.pieces, seen.each, DIGIT)
    assert spots == [seen.pieces.index("12")]
    (reading,) = read(seen.pieces, spots)
    assert [text[a:b] for a, b, _ in reading.addresses(text)] == ["12 Oak Lane, Lund"]


def test_network_remembers_a_bounded_number_of_tokens() -> None:
    """Any number of made-up words leaves its table as large as it was."""
    small = Network(MODEL.read_bytes(), most=500)
    expected = network().scores(["at", "12", "Oak", "Lane"])
    for i in range(60):
        small.scores([f"Q{'x' * (j % 7)}{i}y{j}" for j in range(40)])
    assert small.remembered() <= 500
    assert np.allclose(small.scores(["at", "12", "Oak", "Lane"]), expected, atol=1e-4)


def test_network_features_do_not_name_people() -> None:
    """A name is letters and flags, an ordinary word itself; numbers are their form."""
    assert "=okafor" not in features_of("Okafor")
    assert "=please" in features_of("please")
    assert features_of("4711") == features_of("4823")
    assert TOKEN.findall("12b, O'Neill's") == ["12b", ",", "O'Neill", "'s"]
    assert WIDTH % 8 == 0
