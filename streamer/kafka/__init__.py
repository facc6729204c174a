"""Kafka: the clients, and the topics that they need."""
