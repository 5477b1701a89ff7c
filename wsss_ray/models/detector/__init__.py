"""Grounding DINO: phrases to boxes."""
