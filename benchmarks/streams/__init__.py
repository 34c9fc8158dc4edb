"""Streams from data sets that are not camera folders."""
