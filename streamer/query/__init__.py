"""Neighbours of an item or of a session, from a state folder."""
