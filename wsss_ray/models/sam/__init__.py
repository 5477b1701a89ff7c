"""SAM: boxes to instance masks."""
