"""Trains the small base of the demo from conversations given as an argument; the recipe is finite, so it decays.

Muon on matrices needs about 2.5 times less time here than AdamW alone; embeddings and norms stay with AdamW.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

from learner.adapter.chat import CHAT_TEMPLATE, CONTROL, Said, chat_of
from learner.adapter.padded import hidden_padded, logits
from learner.adapter.weights import Base, assemble
from learner.config import BaseConfig
from learner.shape import MODULES, Shape, module_path, shape_of

Conversation = Sequence[tuple[str, str]]
"""(role, text) turns."""


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """A byte-level BPE whose control tokens have the ids 0 to 3; every text can be written in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(CONTROL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def model_config(config: BaseConfig, vocab: int) -> dict[str, Any]:
    """config.json of the base, as transformers and vLLM read it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": config.hidden,
        "intermediate_size": config.ff,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "head_dim": config.hidden // config.heads,
        "max_position_embeddings": config.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": 3,
        "torch_dtype": "bfloat16",
    }


def initial_tensors(shape: Shape, std: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Trainable tensors under transformers' names: normal(0, std), norms 1."""

    def matrix(rows: int, cols: int) -> Tensor:
        return torch.empty(rows, cols).normal_(0, std, generator=generator).requires_grad_()

    def ones() -> Tensor:
        return torch.ones(shape.hidden, requires_grad=True)

    tensors = {"model.embed_tokens.weight": matrix(shape.vocab, shape.hidden), "model.norm.weight": ones()}
    for layer in range(shape.layers):
        for name in MODULES:
            tensors[f"{module_path(layer, name)}.weight"] = matrix(*shape.module(name))
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = ones()
        tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = ones()
    return tensors


def train_base(
    conversations: Sequence[Conversation],
    out: Path,
    config: BaseConfig,
    report: Callable[[int, int, float], None] | None = None,
) -> Path:
    """Train tokenizer and model, write the folder `out`; `report(step, steps, loss)` hears of progress."""
    tokenizer = train_tokenizer((text for turns in conversations for _, text in turns), config.vocab)
    chat = chat_of(tokenizer)
    documents = [chat.encode([Said(role, text) for role, text in turns]).ids for turns in conversations]
    settings = model_config(config, tokenizer.get_vocab_size())
    shape = shape_of(settings)
    generator = torch.Generator().manual_seed(config.seed)
    tensors = initial_tensors(shape, config.init_std, generator)

    def model() -> Base:
        return assemble(shape, tensors, chat, name=out.name, digests={}, dtype=torch.float32)

    stream = torch.tensor([token for document in documents for token in document])
    lengths = torch.tensor([0] + [len(document) for document in documents]).cumsum(0)[:-1]
    starts = lengths[lengths < len(stream) - config.window - 1]
    if not len(starts):
        raise ValueError(f"conversations: {len(stream)} tokens, need more than one window of {config.window}")
    optimizers = _optimizers(tensors, config)
    steps = max(config.tokens // (config.window * config.batch), 1)
    for step in range(steps):
        chosen = starts[torch.randint(len(starts), (config.batch,), generator=generator)]
        rows = stream[chosen[:, None] + torch.arange(config.window + 1)]
        loss = _loss(model(), rows)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * _schedule(step / steps)
            optimizer.step()
            optimizer.zero_grad()
        if report is not None:
            report(step + 1, steps, loss.item())
    write_base(out, settings, tensors, tokenizer)
    return out


def _loss(base: Base, rows: Tensor) -> Tensor:
    states = hidden_padded(base, None, rows[:, :-1])
    return functional.cross_entropy(logits(base, states), rows[:, 1:].reshape(-1))


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by five Newton-Schulz steps (Jordan 2024), in fp32.

    torch's own computes in bf16, which is 40 times slower on CPUs without bf16 instructions.
    """

    def __init__(self, matrices: Sequence[Tensor], lr: float, momentum: float) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, _closure: None = None) -> None:  # type: ignore[override]  # no closures here
        """One update of every matrix: those of one shape are orthogonalised together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for matrix in group["params"]:
                by_shape.setdefault(tuple(matrix.shape), []).append(matrix)
            for (rows, cols), matrices in by_shape.items():
                pushes = []
                for matrix in matrices:
                    gradient = cast("Tensor", matrix.grad)
                    moved = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                    moved.lerp_(gradient, 1 - group["momentum"])
                    pushes.append(gradient.lerp(moved, group["momentum"]))  # Nesterov
                scale = max(1.0, rows / cols) ** 0.5
                for matrix, push in zip(matrices, orthogonal(torch.stack(pushes)), strict=True):
                    matrix.add_(push, alpha=-group["lr"] * scale)


def orthogonal(stack: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix of each in (n, rows, cols), singular values within about 0.7 to 1.2."""
    x: Tensor = stack if stack.shape[1] <= stack.shape[2] else stack.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if stack.shape[1] <= stack.shape[2] else x.transpose(1, 2)


def _optimizers(tensors: dict[str, Tensor], config: BaseConfig) -> list[torch.optim.Optimizer]:
    matrices = [tensor for key, tensor in tensors.items() if "_proj" in key]
    others = [tensor for key, tensor in tensors.items() if "_proj" not in key]
    found: list[torch.optim.Optimizer] = [
        Muon(matrices, config.muon_lr, momentum=0.95),
        torch.optim.AdamW(others, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for optimizer in found:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return found


def _schedule(done: float) -> float:
    """Warm-up over 4 %, flat to 60 %, linear to 2 %."""
    if done < 0.04:  # the recipe's own numbers
        return max(done / 0.04, 0.02)
    return 1.0 if done < 0.6 else 1.0 - 0.98 * (done - 0.6) / 0.4  # as above


def write_base(out: Path, settings: dict[str, Any], tensors: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Write config.json, model.safetensors (bf16), tokenizer.json and tokenizer_config.json with the chat template."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    weights = {key: value.detach().to(torch.bfloat16).contiguous() for key, value in tensors.items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.encode_special_tokens = False  # as others load it; we switch it on in `chat_of`
    tokenizer.save(str(out / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": CONTROL[0],
        "eos_token": CONTROL[3],
        "model_max_length": settings["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n")
