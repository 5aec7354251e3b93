"""Documents → chunks → vectors → search. See vectorstore.manager.VectorStoreManager."""
