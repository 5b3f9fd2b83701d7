"""The customers' door: OpenAI's chat API outside, sticky canary split, nodes inside, chats recorded to Kafka."""
