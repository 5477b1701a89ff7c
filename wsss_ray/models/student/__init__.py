"""Students: segmentation networks that are trained on labels."""
