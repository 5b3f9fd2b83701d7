"""The HTTP door for chat events.

app.py       routes and answers: /v1/events, /v1/webhooks, /v1/chat/completions, /asyncapi.json
limits.py    bodies within bounds of size, depth and time; senders within their rate
intake.py    an event from the outside -> the record that goes to Kafka
sink.py      records -> Kafka, acknowledged or refused in time
memory.py    ids that are known already, and the numbers of turns, in Redis
capture.py   the OpenAI-compatible proxy whose chats are recorded
metrics.py   what it counts
process.py   `driftline gateway`
"""
