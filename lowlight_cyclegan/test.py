"""Enhance and measure from an option file: ``python -m lowlight_cyclegan.test -opt options/test_lol.yml``.

BasicSR's test_pipeline and flags; ./results takes what it writes.
"""
import os

from .config import run_parser


def main():
    run_parser().parse_known_args()  # --help and wrong flags answer before torch is loaded
    try:
        from . import register
        register()
        from basicsr.test import test_pipeline
        test_pipeline(os.getcwd())
    except KeyboardInterrupt:
        raise SystemExit('Interrupted.') from None


if __name__ == '__main__':
    main()
