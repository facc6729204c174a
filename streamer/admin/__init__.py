"""Commands for the person who operates a worker: reset, forget, dead letters."""
