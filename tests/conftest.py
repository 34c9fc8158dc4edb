"""Shared by all tests: the small bundle and stream that most of them learn on."""

from __future__ import annotations

from hypothesis import settings

# A shared machine may be slow at any moment; what a test proves does not depend on its pace.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
