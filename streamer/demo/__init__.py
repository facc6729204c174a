"""An invented shop, and the demo that runs on it."""
