"""Lets BasicSR's setup.py find its version on Python 3.13 and later. Python reads this file where PYTHONPATH names its
folder, which is meant for one command alone: PYTHONPATH=$PWD/scripts/python313 pip install ...

That setup.py calls exec() in a function and looks for what it defined in locals(), where PEP 667 does not show it.
"""
import builtins
import sys

_exec = builtins.exec


def exec_into_caller(code, *namespaces, **options):
    """exec() that, given no namespaces, writes into the local variables of the function that calls it."""
    if not namespaces and not options:
        caller = sys._getframe(1)
        namespaces = caller.f_globals, caller.f_locals
    _exec(code, *namespaces, **options)


if sys.version_info >= (3, 13):
    builtins.exec = exec_into_caller
