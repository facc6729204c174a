"""What a person or a supervisor sees of a process: metrics, health, log."""
