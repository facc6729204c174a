"""Skip-gram with negative sampling: kernels, and what they read and write."""
