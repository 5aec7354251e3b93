"""What a conversation remembers: kinds and stores by name, joined by a workflow's `memory` step.

Chat tells what was said by memory.exchange.remember, and by memory.exchange.changed that something earlier has changed.
"""
