"""Show labels in a static gallery."""
