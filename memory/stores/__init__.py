"""Where a conversation is read from: `postgres` (the truth), `redis` (its hot tail), `inmemory`
(this process alone).
"""
