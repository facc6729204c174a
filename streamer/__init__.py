"""The part of Walkstream that touches the world: Kafka, RocksDB, HTTP, files and the command
line."""
