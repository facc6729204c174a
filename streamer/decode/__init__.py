"""Records of Kafka into clicks and items, or into dead letters."""
