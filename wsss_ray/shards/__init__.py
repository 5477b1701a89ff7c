"""Image shards and label shards: schemas, units, footers."""
