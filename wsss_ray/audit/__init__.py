"""Rank the images of a run by signs of wrong labels, without a ground truth."""
