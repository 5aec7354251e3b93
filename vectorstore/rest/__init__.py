"""REST for collections, their documents and passages, and search."""
