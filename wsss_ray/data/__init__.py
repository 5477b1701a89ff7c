"""Images, label maps, shards and storage: what is read and written, without Ray and without models."""
