"""The resumable run: it knows units, stages and processes, and no tensor.

Nothing is imported here: the ledger's process, and a restart that finds nothing to do, need little of it.
"""
