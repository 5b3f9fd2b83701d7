"""Base model + LoRA: load, forward, generate, score, files; own forward pass, proven equal to PEFT by a test.

Importing it loads torch, but neither transformers nor peft.
"""

from learner.adapter.chat import Chat, Encoded, Said, encode_chat, load_chat
from learner.adapter.generate import Sampling, answer_ids, continuations, generate, stream
from learner.adapter.lora import AdapterError, Lora, adapter_bytes, adapter_files, new_lora, read_lora
from learner.adapter.tree import Score, Tree, load_adapter, logprobs, score, tree_of
from learner.adapter.weights import Base, load_base

__all__ = [
    "AdapterError",
    "Base",
    "Chat",
    "Encoded",
    "Lora",
    "Said",
    "Sampling",
    "Score",
    "Tree",
    "adapter_bytes",
    "adapter_files",
    "answer_ids",
    "continuations",
    "encode_chat",
    "generate",
    "load_adapter",
    "load_base",
    "load_chat",
    "logprobs",
    "new_lora",
    "read_lora",
    "score",
    "stream",
    "tree_of",
]
