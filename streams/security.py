"""librdkafka's security settings as the Faust consumer wants them: one place to write them, two clients that obey."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust import SASLCredentials, SSLCredentials
from faust.types.auth import SASLMechanism


class UnsupportedSecurity(ValueError):
    """A setting of the section kafka that the worker's consumer cannot follow; the message names it."""


def credentials(extra: Mapping[str, str]) -> Any:
    """Faust's credentials for `security.protocol`, `sasl.*` and `ssl.*`; None for a plain connection."""
    protocol = extra.get("security.protocol", "PLAINTEXT").upper()
    if protocol == "PLAINTEXT":
        return None
    context = _context(extra) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return SSLCredentials(context)
    if protocol not in {"SASL_PLAINTEXT", "SASL_SSL"}:
        raise UnsupportedSecurity(f"kafka.extra: security.protocol = {protocol!r}: wants SSL, SASL_SSL or PLAINTEXT")
    mechanism = extra.get("sasl.mechanism", extra.get("sasl.mechanisms", "PLAIN")).upper()
    known = {"PLAIN": SASLMechanism.PLAIN, "SCRAM-SHA-256": SASLMechanism.SCRAM_SHA_256}
    known["SCRAM-SHA-512"] = SASLMechanism.SCRAM_SHA_512
    if mechanism not in known:
        raise UnsupportedSecurity(f"kafka.extra: sasl.mechanism = {mechanism!r}: wants one of {', '.join(known)}")
    return SASLCredentials(
        username=extra.get("sasl.username", ""), password=extra.get("sasl.password", ""),
        mechanism=known[mechanism], ssl_context=context,
    )  # fmt: skip


def _context(extra: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=extra.get("ssl.ca.location"))
    if "ssl.certificate.location" in extra:
        context.load_cert_chain(
            extra["ssl.certificate.location"], extra.get("ssl.key.location"), extra.get("ssl.key.password")
        )
    if extra.get("ssl.endpoint.identification.algorithm") == "none":
        context.check_hostname = False
    return context
