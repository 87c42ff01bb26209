"""Measuring: datasets on disk, leakage between them, comparison tables and figures, ablations.

Each command of the console has its flags in ``commands.py`` and its work in one module; importing this is light.
"""
