"""Data: documents and the pictures they name."""
