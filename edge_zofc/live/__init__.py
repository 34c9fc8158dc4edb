"""Teach by showing: a camera, a page in the browser and the thread that answers and learns."""
