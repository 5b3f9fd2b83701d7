"""Chats to training samples: events, scrubbing, judging, assembly, replay buffer. Imports no torch."""
