"""The labelling job: image-level tags in, pixel labels out."""
