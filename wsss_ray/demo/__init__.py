"""The embedded demo: procedural scenes with exact masks, and tiny models trained on them."""
