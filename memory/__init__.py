"""What a conversation remembers: kinds × stores."""
