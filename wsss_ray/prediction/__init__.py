"""Label images with a trained student."""
