"""One file a provider: which class, which options, which extra, and how its failures are told apart."""
