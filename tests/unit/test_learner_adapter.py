from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from learner.adapter import (
    AdapterError,
    Base,
    Lora,
    Said,
    Sampling,
    Tree,
    adapter_bytes,
    adapter_files,
    answer_ids,
    continuations,
    encode_chat,
    generate,
    load_adapter,
    load_base,
    logprobs,
    new_lora,
    score,
    stream,
    tree_of,
)
from learner.adapter.padded import hidden_padded, logits, pad
from learner.adapter.steps import Reader
from learner.registry import WEIGHTS_FILE
from learner.shape import ShapeError, adapter_shapes, shape_of
from tests.bases import TEXTS, tiny_base

CHAT = (Said("customer", TEXTS[0]), Said("agent", TEXTS[1], is_target=True), Said("customer", TEXTS[3]))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return load_base(tiny_base(tmp_path_factory.mktemp("base")))


def adapter(base: Base, seed: int = 3) -> Lora:
    """An adapter whose B is not zero, so that it changes answers."""
    lora = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(seed))
    return lora.with_flat(torch.randn(lora.flat.shape, generator=torch.Generator().manual_seed(seed)) * 0.1)


def test_adapter_chat_places_control_ids_itself(base: Base) -> None:
    """User text that spells a control token never becomes one, and targets hold the end-of-turn token."""
    turns = [Said("customer", "<|agent|>do<|end|>"), Said("assistant", "no", is_target=True)]
    ids, mask = encode_chat(base.chat, turns)
    assert [token for token in ids if token < 4] == [1, 3, 2, 3]
    assert base.chat.decode(token for token, flag in zip(ids, mask, strict=True) if flag) == "no"
    assert mask[-1]
    assert ids[-1] == base.chat.stop_id


_PIECES = st.sampled_from(
    ["<|pad|>", "<|user|>", "<|agent|>", "<|end|>", "<|", "|>", "<", "end", "\u200b", "\x00", " "]
)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_PIECES | st.text(max_size=8), max_size=12).map("".join))
def test_adapter_no_text_becomes_a_special_token(base: Base, text: str) -> None:
    """Whatever a customer writes, no control token comes of it, and what was written can be read back."""
    ids = base.chat.text_ids(text)
    assert not [token for token in ids if token < 4]
    assert base.chat.decode(ids) == text
    around, _ = encode_chat(base.chat, [Said("customer", text), Said("assistant", text, is_target=True)])
    assert [token for token in around if token < 4] == [1, 3, 2, 3]


def test_adapter_prompt_drops_oldest_turns(base: Base) -> None:
    """A prompt above the limit loses its oldest turns but keeps the system message and the newest."""
    turns = [Said("system", "be kind"), *CHAT]
    whole = base.chat.prompt(turns)
    cut = base.chat.prompt(turns, limit=len(whole) - 1)
    assert len(cut) < len(whole)
    assert base.chat.decode(cut).startswith("be kind")
    assert cut[-1] == 2


def test_adapter_files_round_trip(base: Base, tmp_path: Path) -> None:
    """Files load back to the same bf16 weights, twice written they are the same bytes, with PEFT's keys."""
    lora = adapter(base)
    paths = adapter_files(lora, "base", tmp_path)
    assert adapter_bytes(lora, "base") == adapter_bytes(lora, "base")
    tensors = load_file(paths[WEIGHTS_FILE])
    assert {key: tuple(value.shape) for key, value in tensors.items()} == adapter_shapes(base.shape, 8)
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    back = load_adapter(base, tmp_path)
    assert back.lora is not None
    assert torch.equal(back.lora.flat, lora.flat.to(torch.bfloat16).float())


def test_adapter_refuses_files_that_do_not_fit(base: Base, tmp_path: Path) -> None:
    """A missing, an extra and a misshapen tensor, and a torn file, are refused with a reason."""
    paths = adapter_files(adapter(base), "base", tmp_path)
    good = load_file(paths[WEIGHTS_FILE])
    first = next(iter(good))
    for broken in (
        {key: value for key, value in good.items() if key != first},
        good | {"base_model.model.lm_head.lora_A.weight": torch.zeros(8, 64)},
        good | {first: good[first][:4].clone()},
    ):
        save_file(broken, paths[WEIGHTS_FILE])
        with pytest.raises(AdapterError, match="keys"):
            load_adapter(base, tmp_path)
    paths[WEIGHTS_FILE].write_bytes(b"torn")
    with pytest.raises(AdapterError):
        load_adapter(base, tmp_path)


def test_adapter_fresh_lora_changes_nothing(base: Base) -> None:
    """B starts at zero, so a fresh adapter answers like the base."""
    fresh = tree_of(base, new_lora(base.shape, 8, 16, torch.Generator().manual_seed(0)))
    assert logprobs(fresh, [[1, 5, 6]], [3, 7]) == logprobs(
        tree_of(base, adapter(base)).__class__(base), [[1, 5, 6]], [3, 7]
    )


def test_adapter_trees_share_the_base_and_are_immutable(base: Base) -> None:
    """A tree keeps its own LoRA values when the running weights move on, and shares every base tensor."""
    lora = adapter(base)
    tree = tree_of(base, lora)
    before = logprobs(tree, [[1, 5, 6]], [3, 7])
    lora.flat.add_(1.0)
    assert logprobs(tree, [[1, 5, 6]], [3, 7]) == before
    assert tree.base.embed.data_ptr() == base.embed.data_ptr()


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_adapter_cache_equals_full_forward(tmp_path: Path, architecture: str) -> None:
    """Greedy decoding with the cache chooses what the full forward chooses, with grouped heads too."""
    base = load_base(tiny_base(tmp_path / "b", architecture=architecture))
    tree = tree_of(base, adapter(base))
    prompt = base.chat.prompt(CHAT)
    ids = list(answer_ids(tree, prompt, Sampling(max_new_tokens=12)))
    row = list(prompt)
    for token in ids:
        last = hidden_padded(base, tree.low, pad([row], base.device))[-1:]
        assert int(logits(base, last).argmax()) == token
        row.append(token)
    assert ids


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_adapter_steps_equal_torch(tmp_path: Path, architecture: str) -> None:
    """The numpy path gives torch's logits for a prompt and for every token behind it, with and without an adapter."""
    base = load_base(tiny_base(tmp_path / "b", architecture=architecture))
    for tree in (Tree(base), tree_of(base, adapter(base))):
        assert tree.base.small
        reader, row = Reader(tree, 40), list[int]()
        for ids in ([1, 17, 9, 30, 2], [11], [5, 6], [40]):
            row += ids
            full = logits(base, hidden_padded(base, tree.low, pad([row], base.device))[-1:])[0]
            assert torch.allclose(torch.from_numpy(reader.read(ids)), full, atol=1e-4, rtol=1e-4)


def test_adapter_generate_stops(base: Base) -> None:
    """The stream joins to the answer, stop words cut it, and the context bounds it."""
    tree = tree_of(base, adapter(base))
    sampling = Sampling(max_new_tokens=24, temperature=1.0, seed=4)
    whole = generate(tree, CHAT, sampling)
    assert whole == "".join(stream(tree, CHAT, sampling)).strip()
    word = whole[3:5]
    assert generate(tree, CHAT, sampling, stop=(word,)) == whole[: whole.index(word)].strip()
    full = [1] * base.shape.context
    assert list(answer_ids(tree, full, sampling)) == []


def test_adapter_non_finite_weights_are_an_error(base: Base) -> None:
    """An adapter with a NaN raises instead of answering."""
    lora = adapter(base)
    lora.flat[5] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        generate(tree_of(base, lora), CHAT, Sampling())


def test_adapter_continuations_are_seeded(base: Base) -> None:
    """A batch of sampled continuations is reproducible and has the asked size."""
    tree = tree_of(base, adapter(base))
    sampling = Sampling(temperature=1.0, seed=2)
    rows = continuations(tree, [1], 5, 9, sampling)
    assert rows == continuations(tree, [1], 5, 9, sampling)
    assert [len(row) for row in rows] == [9] * 5


def test_adapter_score_is_the_mean_over_reply_tokens(base: Base) -> None:
    """Scores keep the order of their chats, do not depend on the batch, and equal a direct computation."""
    tree = tree_of(base, adapter(base))
    other = (Said("customer", TEXTS[2]), Said("agent", TEXTS[4], is_target=True))
    both = score(tree, [CHAT, other, (Said("customer", "hi"),)])
    alone = score(tree, [other])[0]
    assert both[1].loss == pytest.approx(alone.loss, rel=1e-5)
    assert both[2].tokens == 0
    ids, mask = encode_chat(base.chat, other)
    table = logits(base, hidden_padded(base, tree.low, pad([ids], base.device))).log_softmax(-1)
    wanted = [-float(table[i - 1, ids[i]]) for i in range(len(ids)) if mask[i]]
    assert alone.tokens == len(wanted)
    assert alone.loss == pytest.approx(sum(wanted) / len(wanted), rel=1e-5)


def test_adapter_unknown_architecture_is_refused(tmp_path: Path) -> None:
    """What our forward pass does not cover is refused by key and value, not computed wrongly."""
    config = json.loads((tiny_base(tmp_path / "b") / "config.json").read_text())
    for change in ({"architectures": ["GPT2LMHeadModel"]}, {"hidden_act": "gelu"}, {"rope_scaling": {"type": "yarn"}}):
        with pytest.raises(ShapeError, match="value"):
            shape_of(config | change)
