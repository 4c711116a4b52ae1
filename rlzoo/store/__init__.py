"""Files on disk: the run folder, its lock, its checks, and provenance (versions, commit, hardware).

Every file is written whole or not at all, and read through a model that checks it.
Not here: what a report is made of (`rlzoo.report`) and the adapters' format (`rlzoo.model`).
"""
