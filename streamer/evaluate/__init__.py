"""How well a model would have done on a log, and how stable it would have been."""
