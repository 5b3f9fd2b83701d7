"""Personal data: text in, the same text with placeholders out; nothing unscrubbed passes this package."""
