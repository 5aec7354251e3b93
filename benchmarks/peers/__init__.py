"""The servers that ours is measured against, as small as they can be.

They all speak the same: a frame `{"tokens": …, "rate": …, "to": …}` orders an answer (`to`: "me" or "all"), each token
is a frame `{"type": "token", "text": …}`, and `{"type": "end"}` is the last.
"""
