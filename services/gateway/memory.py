"""What the gateway remembers in Redis (`gw:`): ids that Kafka has acknowledged, and numbers of turns.

Everything is keyed by the broker's identity: an embedded broker forgets its records when it ends, and ids that
outlived them would swallow what is sent again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

NUMBER = files("services.gateway").joinpath("number.lua").read_text()

REMEMBER = "for _, key in ipairs(KEYS) do redis.call('SET', key, '1', 'EX', ARGV[1]) end"
"""A whole batch in one call: a pipeline of SETs costs our side 20 us each."""


def connect(url: str, timeout_s: float) -> Redis:
    """A client whose every call ends in time and is never repeated behind our back."""
    return Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=Retry(NoBackoff(), 0))


class Forgetful(Exception):
    """Redis does not answer, and without it turns of a webhook cannot be numbered."""


class Memory:
    """Ids and numbers of one broker, kept for `keep_s` seconds after their last use."""

    def __init__(self, client: Redis, broker: str, keep_s: float, failed: Callable[[BaseException], None]) -> None:
        self._client = client
        self._prefix = f"gw:{broker}:"
        self._keep_s = int(keep_s)
        self._failed = failed
        self._number = client.register_script(NUMBER)
        self._remember = client.register_script(REMEMBER)

    async def known(self, tenant: str, event_ids: Sequence[str]) -> list[bool]:
        """Which of these ids Kafka has acknowledged before; all new while Redis is away (the ledger drops repeats)."""
        if not event_ids:
            return []
        try:
            found = await self._client.mget([self._id(tenant, name) for name in event_ids])
        except RedisError as error:
            self._failed(error)
            return [False] * len(event_ids)
        return [value is not None for value in found]

    async def remember(self, tenant: str, event_ids: Sequence[str]) -> None:
        """These ids are acknowledged. A failure is counted and costs a repeat."""
        try:
            call = self._remember(keys=[self._id(tenant, name) for name in event_ids], args=[self._keep_s])
            await cast("Awaitable[Any]", call)
        except RedisError as error:
            self._failed(error)

    async def number(self, tenant: str, conversation_id: str, event_id: str, *, turn: bool) -> int:
        """The seq of an event: the next number for a turn, the count so far for others; the same when asked again.

        Raises `Forgetful`.
        """
        key = f"{self._prefix}seq:{_digest(tenant, conversation_id)}"
        try:
            call = cast("Awaitable[Any]", self._number(keys=[key], args=[event_id, int(turn), self._keep_s]))
            return int(await call)
        except RedisError as error:
            self._failed(error)
            raise Forgetful from None

    async def chat(self, tenant: str, digest: str) -> tuple[str, int] | None:
        """Conversation and next seq of a captured chat whose messages so far have this digest. Raises `Forgetful`."""
        try:
            raw = await self._client.get(f"{self._prefix}chat:{_digest(tenant, digest)}")
        except RedisError as error:
            self._failed(error)
            raise Forgetful from None
        if raw is None:
            return None
        text = raw.decode() if isinstance(raw, bytes) else raw
        seq, _, name = text.partition(" ")
        return name, int(seq)

    async def keep_chat(self, tenant: str, digest: str, conversation_id: str, seq: int) -> None:
        """Where a captured chat goes on."""
        try:
            key = f"{self._prefix}chat:{_digest(tenant, digest)}"
            await self._client.set(key, f"{seq} {conversation_id}", ex=self._keep_s)
        except RedisError as error:
            self._failed(error)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    def _id(self, tenant: str, name: str) -> str:
        return f"{self._prefix}id:{_digest(tenant, name)}"


def _digest(*parts: str) -> str:
    """Ids of customers may be personal data, so keys hold digests of them."""
    text = "\x1f".join(parts).encode(errors="surrogatepass")
    return blake2b(text, digest_size=16, person=b"gateway").hexdigest()
