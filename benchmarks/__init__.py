"""What must be fast, measured against its peers in one run: `make bench`, or `python -m benchmarks relay fanout`.

The server under measurement has one core to itself, the client and the stores share another. Peers take turns round by
round, so that whatever else the machine does falls on all of them; the fastest round counts.
"""
