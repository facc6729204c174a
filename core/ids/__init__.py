"""Ids as numbers: texts, hashes, and the slots of items and users."""
