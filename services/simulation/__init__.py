"""Simulated customer support: shops, customers, their chats, what goes wrong in them, and what they feel about answers.

The dialogue grammars in `shops/` are our own wording; everything else draws from them with a seed.
"""
