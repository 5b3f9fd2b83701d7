"""Ordered turns of conversations -> training samples: pure cutting logic and the store under `asm:`."""

from streams.assemble.conversation import Conversation, Memo, Reply, View, view
from streams.assemble.cut import Cut, Prepared, cut, prepare
from streams.assemble.split import split_of

__all__ = ["Conversation", "Cut", "Memo", "Prepared", "Reply", "View", "cut", "prepare", "split_of", "view"]
