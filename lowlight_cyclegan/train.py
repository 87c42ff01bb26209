"""Train from an option file: ``python -m lowlight_cyclegan.train -opt options/train_lol.yml``.

BasicSR's train_pipeline and flags; ./experiments takes what it writes.
"""
import os
import re
import signal

from .config import run_parser


def main():
    run_parser().parse_known_args()  # --help and wrong flags answer before torch is loaded
    try:
        from . import register
        register()
        from basicsr.train import train_pipeline
        train_pipeline(os.getcwd())
    except KeyboardInterrupt:
        raise SystemExit('Interrupted.') from None
    except OSError as error:
        if error.filename is None:
            raise
        raise SystemExit(f'{error.filename}: {error.strerror}. Mend this and continue with --auto_resume.') from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if 'DataLoader worker' in reason:
            if hasattr(signal, 'SIGCHLD'):
                # The loader's handler would raise once more as the other workers end, in place of the line below.
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            raise SystemExit(f'{reason} If memory ran out, lower num_worker_per_gpu. '
                             'Continue with --auto_resume.') from None
        if re.search('gloo|NCCL', str(error)):
            raise SystemExit(f'Lost another process of this run, whose own message says why ({reason}). '
                             'Continue with --auto_resume.') from None
        raise


if __name__ == '__main__':
    main()
