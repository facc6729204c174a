"""The decayed item graph: folding clicks in, sessions, and walks on it."""
