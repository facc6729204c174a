"""Clicks and catalogues in files: into Kafka, or straight through the engine."""
