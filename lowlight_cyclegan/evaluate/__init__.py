"""Measuring: comparison tables and figures of methods on datasets."""
