"""Pack a VOC tree, COCO, or a folder of images with tags into Parquet image shards."""
