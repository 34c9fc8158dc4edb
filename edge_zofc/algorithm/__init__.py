"""The method as arithmetic: numpy only, no file, no clock."""
