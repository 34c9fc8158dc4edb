"""Cameras and what is shown to them: pictures one at a time, from a child process, a folder or a browser."""
