"""Sessions, turns, the wire protocol, sockets and the REST that goes with them."""
