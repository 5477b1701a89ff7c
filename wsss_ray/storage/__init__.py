"""Files on local disk and in object stores: one API, retries, weights, redaction."""
