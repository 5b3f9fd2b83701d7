"""Webhook bodies of platforms as chat events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.events import BadEvent, from_object
from streams.sources.platforms import Malformed, challenge, drafts
from streams.sources.signatures import SOURCES, EventIds

IDS = EventIds("req-1", 1767323045.0)
TIME = "2026-01-02T03:04:05Z"


def zendesk(kind: str, event: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "z-1",
        "type": f"zen:event-type:ticket.{kind}",
        "time": TIME,
        "detail": {"id": "77"},
        "event": event,
    }


def comment(*, staff: bool = False, public: bool = True) -> dict[str, Any]:
    author = {"id": "9", "is_staff": staff, "name": "Ann Field"}
    return {"comment": {"id": "1", "author": author, "body": "It broke.", "is_public": public}}


def test_platforms_zendesk_comments_are_messages() -> None:
    """Public comments of staff are an agent's, others a customer's; internal notes stay internal."""
    (said,) = drafts("zendesk", zendesk("comment_added", comment()), IDS)
    assert said["conversation_id"] == "zendesk-77"
    assert (said["role"], said["customer"]) == ("customer", {"id": "9", "name": "Ann Field"})
    (answered,) = drafts("zendesk", zendesk("comment_added", comment(staff=True)), IDS)
    assert (answered["role"], answered["agent_id"]) == ("agent", "9")
    assert drafts("zendesk", zendesk("comment_added", comment(public=False)), IDS) == []


def test_platforms_zendesk_status_and_satisfaction() -> None:
    """Solving closes, reopening is feedback, a score is a rating; other events give nothing."""
    (closed,) = drafts("zendesk", zendesk("status_changed", {"previous": "open", "current": "SOLVED"}), IDS)
    assert (closed["type"], closed["resolved"]) == ("conversation_closed", True)
    (again,) = drafts("zendesk", zendesk("status_changed", {"previous": "SOLVED", "current": "OPEN"}), IDS)
    assert again["kind"] == "reopened"
    (score,) = drafts("zendesk", zendesk("satisfaction_score_changed", {"current": "BAD_WITH_COMMENT"}), IDS)
    assert (score["rating"], score["scale"]) == (0, [0, 1])
    assert drafts("zendesk", zendesk("tags_changed", {}), IDS) == []
    assert drafts("zendesk", {"type": "zen:event-type:user.created"}, IDS) == []


def intercom(topic: str, item: dict[str, Any]) -> dict[str, Any]:
    return {"id": "notif_1", "topic": topic, "created_at": 1767323045, "data": {"item": {"id": "5", **item}}}


def part(kind: str, text: str, part_type: str = "comment") -> dict[str, Any]:
    author = {"type": kind, "id": "8", "name": "Bo", "email": "bo@home.example"}
    return {"id": "p", "part_type": part_type, "body": text, "author": author}


def test_platforms_intercom_parts_are_messages() -> None:
    """HTML becomes text, admins are agents, bots assistants, notes stay out, and each part has an id of its own."""
    parts = [part("admin", "<p>Hi <b>Bo</b></p>"), part("bot", "wait"), part("admin", "secret", "note")]
    found = drafts(
        "intercom",
        intercom(
            "conversation.user.created",
            {"source": part("user", "<p>help</p>"), "conversation_parts": {"conversation_parts": parts}},
        ),
        IDS,
    )
    assert [(d["role"], d["text"]) for d in found] == [("customer", "help"), ("agent", "Hi Bo"), ("assistant", "wait")]
    assert [d["event_id"] for d in found] == ["notif_1", "notif_1.1", "notif_1.2"]
    assert found[0]["customer"] == {"id": "8", "name": "Bo", "email": "bo@home.example"}
    assert found[0]["ts"].startswith(TIME[:-1])


def test_platforms_intercom_end_and_rating() -> None:
    """Closing with a last word gives both; a rating is one to five."""
    item = {"conversation_parts": {"conversation_parts": [part("admin", "bye")]}}
    found = drafts("intercom", intercom("conversation.admin.closed", item), IDS)
    assert [d["type"] for d in found] == ["message", "conversation_closed"]
    (rated,) = drafts("intercom", intercom("conversation.rating.added", {"conversation_rating": {"rating": 4}}), IDS)
    assert (rated["rating"], rated["scale"]) == (4, [1, 5])
    assert drafts("intercom", intercom("conversation.admin.assigned", {}), IDS) == []
    assert drafts("intercom", {"topic": "ping"}, IDS) == []


def slack(**event: Any) -> dict[str, Any]:
    base = {"type": "message", "user": "U1", "text": "hi", "ts": "1767323045.000200", "channel": "C1"}
    return {"type": "event_callback", "event_id": "Ev1", "team_id": "T1", "event": {**base, **event}}


def test_platforms_slack_messages() -> None:
    """A thread is a conversation, staff are agents, links lose their marks, edits and bots give nothing."""
    (said,) = drafts("slack", slack(text="see <http://a.example|a.example>"), IDS)
    assert (said["conversation_id"], said["event_id"]) == ("slack-T1-C1-1767323045.000200", "Ev1")
    assert said["text"] == "see a.example"
    (answer,) = drafts("slack", slack(thread_ts="1767323045.000200", user="U2", ts="1767323050.1"), IDS, {"U2"})
    assert (answer["conversation_id"], answer["role"]) == (said["conversation_id"], "agent")
    assert drafts("slack", slack(subtype="message_changed"), IDS) == []
    assert drafts("slack", slack(user=None, bot_id="B"), IDS) == []
    assert challenge("slack", {"type": "url_verification", "challenge": "c"}) == "c"
    assert challenge("zendesk", {"type": "url_verification", "challenge": "c"}) is None


def test_platforms_standard_webhooks_carry_our_event() -> None:
    """The event stands in `data` or is the body; the signed id and time fill what it lacks."""
    event = {"type": "message", "conversation_id": "c", "seq": 0, "role": "agent", "text": "x"}
    (inner,) = drafts("standard", {"type": "chat", "timestamp": TIME, "data": event}, IDS)
    assert (inner["event_id"], inner["ts"], inner["type"]) == ("req-1", TIME, "message")
    (plain,) = drafts("standard", {**event, "event_id": "e", "ts": TIME}, IDS)
    assert from_object(plain, b"c").event_id == "e"


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("zendesk", zendesk("comment_added", {"comment": {"author": {}}})),
        ("zendesk", {"type": "zen:event-type:ticket.comment_added", "time": TIME}),
        ("zendesk", {**zendesk("comment_added", comment()), "time": "soon"}),
        ("intercom", {"topic": "conversation.user.replied", "data": {"item": {"id": True}}}),
        ("intercom", intercom("conversation.rating.added", {"conversation_rating": {"rating": "5"}})),
        ("slack", slack(text=None)),
        ("slack", slack(ts="later")),
        ("slack", {"type": "url_verification"}),
    ],
)
def test_platforms_refuse_bodies_that_lack_their_fields(source: str, body: dict[str, Any]) -> None:
    """A known event without its fields is malformed, and the message quotes no value."""
    with pytest.raises(Malformed) as caught:
        _read(source, body)
    assert len(str(caught.value)) < 20


def _read(source: str, body: dict[str, Any]) -> None:
    if challenge(source, body) is None:
        drafts(source, body, IDS)


_NAMES = """type topic id data item event detail comment author body text ts user time created_at conversation_parts
source conversation_rating rating thread_ts channel"""
_KEYS = st.sampled_from(_NAMES.split()) | st.text(max_size=6)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=25,
)
_KINDS = st.sampled_from(
    ["zen:event-type:ticket.comment_added", "event_callback", "message", "zen:event-type:ticket.status_changed"]
)
_TOPICS = st.sampled_from(["conversation.user.created", "conversation.admin.closed", "conversation.rating.added"])


@given(source=st.sampled_from(SOURCES), body=st.dictionaries(_KEYS, _JSON, max_size=6), kind=_KINDS, topic=_TOPICS)
def test_platforms_any_body_is_read_or_malformed(source: str, body: dict[str, Any], kind: str, topic: str) -> None:
    """Whatever was signed: drafts or `Malformed`, and a draft is an event or a bad one, never another error."""
    try:
        found = drafts(source, {**body, "type": kind, "topic": topic}, IDS)
    except Malformed:
        return
    for draft in found:
        whole = {"seq": 0, "turns": 0, **draft}
        try:
            from_object(whole, str(whole.get("conversation_id")).encode(errors="replace"))
        except BadEvent:
            continue
