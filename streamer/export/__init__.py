"""What leaves for other tools: all vectors, or the neighbours of all items, as files."""
