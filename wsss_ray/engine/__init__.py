"""The resumable run of units through stages, in processes. It handles no tensors.

Nothing is imported here: the ledger's process, and a restart that finds nothing to do, need little of it.
"""
