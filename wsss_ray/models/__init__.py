"""Plain torch objects: detector, segmenter, fusion. They know neither Ray nor storage."""
