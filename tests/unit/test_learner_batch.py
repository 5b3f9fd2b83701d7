from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.adapter import Chat, load_chat
from learner.batch import Drawn, arm_factor, documents, micro_batches, pack
from learner.config import TrainConfig
from streams.events import Pair, Sample, Turn
from tests.bases import TEXTS, tiny_base

CONFIG = TrainConfig(document_tokens=48)
DRAWN = Drawn("fresh", "00")


@cache
def chat() -> Chat:
    return load_chat(tiny_base(Path(mkdtemp()) / "base"))


def sample(turns: tuple[Turn, ...], pair: Pair | None = None, arm: str | None = None, p: float | None = None) -> Sample:
    return Sample(
        sample_id="e/sft/0", conversation="c", customer="k", lane="chat", split="train", turns=turns,
        received_at=0.0, completed_at=0.0, pair=pair, arm=arm, p=p,
    )  # fmt: skip


texts = st.one_of(st.sampled_from(TEXTS), st.text(min_size=1, max_size=60), st.just("<|agent|> x <|end|>"))
turns = st.lists(
    st.builds(
        Turn,
        role=st.sampled_from(["customer", "agent", "assistant"]),
        text=texts,
        is_target=st.booleans(),
        label=st.sampled_from(["unknown", "good", "bad"]),
        weight=st.sampled_from([0.0, 0.01, 0.5, 1.0, 7.0]),
    ),
    min_size=1,
    max_size=8,
).map(lambda found: tuple(t if t.role != "customer" else Turn(role="customer", text=t.text) for t in found))


@settings(deadline=None, max_examples=150)
@given(turns)
def test_batch_every_reply_token_is_a_target_once(said: tuple[Turn, ...]) -> None:
    """Over all windows each token of a learnable reply, end included, is a target once, and nothing else is."""
    found = documents(chat(), sample(said), DRAWN, CONFIG)
    wanted: list[int] = []
    for turn in said:
        if turn.is_target and (turn.weight > 0 or turn.label == "bad"):
            wanted += [*chat().text_ids(turn.text), chat().stop_id]
    got = [document.ids[i] for document in found for reply in document.replies for i in range(reply.start, reply.stop)]
    assert got == wanted
    assert all(len(document.ids) <= CONFIG.document_tokens for document in found)
    for document in found:
        for reply in document.replies:
            assert reply.start >= 1
            assert reply.weight == 0 if reply.label == "bad" else 0.05 <= reply.weight <= 2


@settings(deadline=None, max_examples=50)
@given(st.lists(turns, min_size=1, max_size=6))
def test_batch_pack_keeps_documents_apart(chats: list[tuple[Turn, ...]]) -> None:
    """Positions start again in each document, labels are shifted inside it, padding carries weight 0."""
    made = [d for said in chats for d in documents(chat(), sample(said), DRAWN, CONFIG)]
    if not made:
        return
    size = sum(len(d.ids) for d in made) + 5
    labels = sum(d.targets for d in made) + 3
    batch = pack(made, size=size, slots=len(made) + 2, labels=labels)
    assert len(batch.tokens) == size
    assert len(batch.bounds) == len(made) + 3
    assert batch.bounds[-1] == size
    assert batch.weights[labels - 3 :].sum() == 0
    for number, document in enumerate(made):
        start, stop = int(batch.bounds[number]), int(batch.bounds[number + 1])
        assert tuple(batch.tokens[start:stop].tolist()) == document.ids
        assert batch.positions[start:stop].tolist() == list(range(len(document.ids)))
    for span in batch.spans:
        low, high = int(batch.bounds[span.document]), int(batch.bounds[span.document + 1])
        at = batch.targets_at[span.start : span.stop]
        assert bool(((at >= low) & (at + 1 < high)).all())
        assert torch.equal(batch.targets[span.start : span.stop], batch.tokens[at + 1])


def test_batch_pack_refuses_what_does_not_fit() -> None:
    """Static sizes that are too small are an error, not a silent cut."""
    made = documents(chat(), sample((Turn(role="agent", text="hello", is_target=True),)), DRAWN, CONFIG)
    with pytest.raises(ValueError, match="do not fit"):
        pack(made, size=2)


def test_batch_arm_weights() -> None:
    """A reply counts 1 / (probability of its arm), within bounds; outside a rollout it counts 1."""
    said = (Turn(role="agent", text="x", is_target=True),)
    assert arm_factor(sample(said), 4) == 1
    assert arm_factor(sample(said, arm="candidate", p=0.5), 4) == 2
    assert arm_factor(sample(said, arm="candidate", p=0.01), 4) == 4
    assert arm_factor(sample(said, arm="control", p=0.05), 4) == pytest.approx(1 / 0.95)


def test_batch_pairs_stay_together() -> None:
    """Draft and final of an edit share their context, only the final is learned, and no micro-batch parts them."""
    said = (Turn(role="customer", text="when?"), Turn(role="agent", text="final text", is_target=True))
    edit = sample(said, pair=Pair(draft="a draft", final="final text"))
    draft, final = documents(chat(), edit, DRAWN, CONFIG)
    assert draft.replies[0].draft
    assert draft.replies[0].weight == 0
    assert final.replies[0].weight == 1
    start = draft.replies[0].start
    assert draft.ids[:start] == final.ids[:start]
    single = documents(chat(), sample(said), DRAWN, CONFIG)
    for group in micro_batches([*single, draft, final, *single, draft, final], 3):
        drafts = [index for index, document in enumerate(group) if document.replies[0].draft]
        assert all(not group[index + 1].replies[0].draft for index in drafts)
