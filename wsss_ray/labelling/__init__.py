"""Label images from their tags."""
