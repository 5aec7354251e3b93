"""Workspaces (tenants), membership and roles, tokens, sign-in."""
