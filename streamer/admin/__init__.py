"""Commands for the person who operates a worker: reset, forget, major updates, dead letters."""
