"""The worker: one process that holds sealed shards, gates their execution, and answers over HTTP (worker.md).

Needs the extra ``worker``; nothing here is imported before ``vram serve`` or a client asks for it.
"""
