"""The board and its memory."""
