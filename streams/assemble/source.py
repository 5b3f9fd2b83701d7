"""Where a sample belongs: its customer, its lane by the channel of its chat, its topic by the customer's words.

The topic is a cheap guess for slices and spread, never a filter: words vote, and without a clear majority it is
`other`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from streams.events import CleanEvent

LANES: Mapping[str, str] = {
    "email": "email", "mail": "email", "faq": "faq", "bitext": "faq", "page": "documents", "document": "documents",
    "documents": "documents", "docs": "documents", "product": "documents", "manual": "documents",
}  # fmt: skip
"""Channel of a chat's last reply -> lane of the replay buffer; every other channel is live chat."""

CHAT = "chat"
OTHER = "other"

LEAST = 2
"""Votes without which a topic is not believed, unless nothing speaks for another."""

_VOTES: Mapping[str, str] = {
    "refund": "refund return money-back exchange replace defective damaged broken",
    "delivery": "deliver delivery parcel package ship shipping shipment courier tracking arrive carrier",
    "payment": "payment pay paid card invoice bill billing charge charged price fee discount voucher",
    "order": "order purchase bought basket checkout stock",
    "account": "account password login username profile email locked verify sign",
    "subscription": "subscription plan renew upgrade downgrade trial membership cancel",
    "booking": "book booking reservation reserve hotel room flight ticket trip travel restaurant table appointment",
    "technical": "error crash install update screen wifi router internet battery device app reset connect server",
    "product": "size colour color warranty feature manual model material compatible spec",
    "bank": "bank transfer balance loan deposit withdraw currency fraud",
}
"""Topic -> words that vote for it; longer forms of a word vote too."""

_STEM = 6
"""Letters by which a word is known."""

_WORD = re.compile(r"[a-z]{3,}")
_TOPIC_OF = {word[:_STEM]: topic for topic, words in _VOTES.items() for word in words.split()}


def lane_of(channel: str | None) -> str:
    """The lane of a chat that came by this channel."""
    return LANES.get((channel or "").lower(), CHAT)


def topic_of(said: Iterable[str]) -> str:
    """What a customer's turns are about, or `other`."""
    votes: Counter[str] = Counter()
    for text in said:
        for word in set(_WORD.findall(text.lower())):
            topic = _TOPIC_OF.get(word[:_STEM]) or _TOPIC_OF.get(word.removesuffix("s"))
            if topic is not None:
                votes[topic] += 1
    ranked = votes.most_common(2)
    if not ranked:
        return OTHER
    best, count = ranked[0]
    alone = len(ranked) == 1
    return best if alone or (count >= LEAST and count > ranked[1][1]) else OTHER


def customer_of(ordered: Sequence[CleanEvent]) -> str:
    """The customer's pseudonym where any event names one, else the conversation's."""
    return next((event.customer for event in ordered if event.customer), ordered[0].conversation)
