"""Images and label maps as files: decode, check, encode."""
