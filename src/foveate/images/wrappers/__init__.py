"""Wrappers of sources: they make something else of another source's pixels, or say more of them."""
