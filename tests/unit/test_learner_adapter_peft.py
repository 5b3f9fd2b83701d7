from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from learner.adapter import Sampling, Tree, adapter_files, answer_ids, load_base, new_lora, score, tree_of
from learner.adapter.chat import Said
from learner.adapter.decoder import folded
from learner.adapter.lora import Lora
from learner.adapter.padded import hidden_padded, logits, pad
from tests.bases import TEXTS, rewrite_fp32, tiny_base

ARCHITECTURES = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM")
"""The last one is computed by transformers."""
ROWS = ([1, 40, 41, 42, 3, 2, 60, 61, 3], [1, 90, 3, 2, 33, 3], [1, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 3])


def peft_model(base: Path, adapter: Path) -> Any:
    from peft import PeftModel  # noqa: PLC0415 - 11 s of import, paid by this file only
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    peft = PeftModel.from_pretrained(model, adapter, is_trainable=True)
    for name, value in peft.named_parameters():
        if "lora_" in name:
            value.data = value.data.float()
    return peft


def losses(table: torch.Tensor, rows: tuple[list[int], ...]) -> torch.Tensor:
    """Sum of next-token cross-entropies of padded logits (B, T, V)."""
    parts = [
        functional.cross_entropy(table[i, : len(row) - 1], torch.tensor(row[1:]), reduction="sum")
        for i, row in enumerate(rows)
    ]
    return torch.stack(parts).sum()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapter_equals_peft(tmp_path: Path, architecture: str) -> None:
    """Loss and every LoRA gradient equal PEFT on the same weights; PEFT loads our files unchanged."""
    path = tiny_base(tmp_path / "base", architecture=architecture)
    rewrite_fp32(path)
    base = load_base(path)
    start = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
    noise = torch.randn(start.flat.shape, generator=torch.Generator().manual_seed(2)) * 0.05
    flat = noise.to(torch.bfloat16).float().requires_grad_()
    lora = Lora(base.shape, 8, 16, flat)
    adapter_files(lora, str(path), tmp_path / "adapter")

    tokens = pad(ROWS, torch.device("cpu"))
    ours = losses(logits(base, hidden_padded(base, lora.layers(torch.float32), tokens)).view(*tokens.shape, -1), ROWS)
    torch.autograd.backward(ours)

    if base.foreign is None:  # folded into the base for a step, the same
        again = flat.detach().clone().requires_grad_()
        into = folded(base, lora.with_flat(again).layers(torch.float32))
        torch.autograd.backward(losses(logits(base, hidden_padded(*into, tokens)).view(*tokens.shape, -1), ROWS))
        assert flat.grad is not None
        assert again.grad is not None
        assert float((again.grad - flat.grad).norm() / flat.grad.norm()) < 1e-5

    peft = peft_model(path, tmp_path / "adapter")
    mask = torch.tensor([[i < len(row) for i in range(tokens.shape[1])] for row in ROWS])
    theirs = losses(peft(input_ids=tokens, attention_mask=mask).logits, ROWS)
    torch.autograd.backward(theirs)

    assert (base.foreign is not None) == (architecture == "MistralForCausalLM")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert flat.grad is not None
    gradients = lora.with_flat(flat.grad).tensors()
    wanted = {
        name.replace(".default", ""): value.grad for name, value in peft.named_parameters() if value.grad is not None
    }
    assert set(wanted) == set(gradients)
    for key, gradient in gradients.items():
        distance = float((gradient - wanted[key]).norm() / wanted[key].norm())
        assert distance < 1e-5, key


def test_adapter_chat_equals_template(tmp_path: Path) -> None:
    """Our ids are those of the base's own chat template on harmless chats: what is trained is what is served."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - slow import

    path = tiny_base(tmp_path / "base")
    theirs = AutoTokenizer.from_pretrained(path)
    ours = load_base(path).chat
    turns = [Said("system", "be kind"), Said("customer", TEXTS[0]), Said("agent", TEXTS[1]), Said("customer", TEXTS[5])]
    names = {"customer": "user", "agent": "assistant", "system": "system"}
    messages = [{"role": names[turn.role], "content": turn.text} for turn in turns]
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.prompt(turns) == theirs(text, add_special_tokens=False)["input_ids"]
    assert json.loads((path / "tokenizer_config.json").read_text())["eos_token"] == "<|end|>"


def test_adapter_foreign_base_generates(tmp_path: Path) -> None:
    """Where transformers computes, answers and scores follow the adapter of their own tree."""
    base = load_base(tiny_base(tmp_path / "base", architecture="MistralForCausalLM"))
    start = new_lora(base.shape, 8, 16, torch.Generator().manual_seed(1))
    noise = torch.randn(start.flat.shape, generator=torch.Generator().manual_seed(2))
    tree = tree_of(base, start.with_flat(noise * 0.2))
    turns = [Said("customer", TEXTS[0]), Said("agent", TEXTS[1], is_target=True)]
    assert score(tree, [turns])[0].loss != score(Tree(base), [turns])[0].loss
    ids = list(answer_ids(tree, base.chat.prompt(turns[:1]), Sampling(max_new_tokens=5)))
    row = base.chat.prompt(turns[:1])
    for token in ids:
        assert int(logits(base, hidden_padded(base, tree.low, pad([row], base.device))[-1:]).argmax()) == token
        row.append(token)
