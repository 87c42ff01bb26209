"""Datasets on disk: laid out, checked, fingerprinted, compared for overlap."""
