"""The worker: its loop, the commit protocol, how it restores, and how it is watched."""
