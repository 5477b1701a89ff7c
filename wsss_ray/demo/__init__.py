"""An embedded demo: procedural scenes with exact masks, and the tiny models trained on them."""
