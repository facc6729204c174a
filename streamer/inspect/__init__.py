"""Commands that look into a folder or a topic and change nothing."""
