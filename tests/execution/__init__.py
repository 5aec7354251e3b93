"""Running workflows outside of chats."""
