"""Where an item stands: its cluster and its LSH buckets."""
