"""A page in the browser that brightens photos."""
