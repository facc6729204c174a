"""Settings: their sections, how they are loaded, written, checked and shown."""
