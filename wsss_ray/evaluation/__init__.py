"""Compare labels with their truth: mIoU and other metrics."""
