"""Sources of images, tags and truth: VOC, COCO, a folder, or one that another package registers."""
