"""Memory's rows."""

from memory.leases import ProcessLease as ProcessLease
