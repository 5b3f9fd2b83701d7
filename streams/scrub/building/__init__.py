"""Rebuilds the packaged lexicon and tagger from their sources; nothing here runs in a process of the system."""
