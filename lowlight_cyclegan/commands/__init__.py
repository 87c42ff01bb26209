"""The console command ``lowlight-cyclegan`` and the flags it shares with BasicSR's scripts. Imports stay light."""
import argparse
import json
import os
import sys

from .enhance_flags import add_commands as add_enhance_commands
from .evaluate_flags import add_commands as add_evaluate_commands
from lowlight_cyclegan.config import add_run_flags
from lowlight_cyclegan.messages import fail, nearest


def _run(module):
    """A command that hands its flags over to ``python -m lowlight_cyclegan.<module>``."""

    def command(args):
        from importlib import import_module
        sys.argv = [f'lowlight-cyclegan {module}', *sys.argv[2:]]
        import_module(f'lowlight_cyclegan.{module}').main()

    return command


def _attach(args):
    from lowlight_cyclegan.attach import attach
    attach(args.directory, args.force)


def _detach(args):
    from lowlight_cyclegan.attach import detach
    detach(args.directory)


def _info(args):
    if args.model:
        from lowlight_cyclegan.enhance.pretrained import boxed, card
        if args.model not in boxed():
            fail(f'{args.model}: no weights of that name are in the box{nearest(args.model, boxed())}')
        print(json.dumps({'name': args.model, 'card': card(args.model)}) if args.json else card(args.model))
        return
    from .info import info
    found = info()
    if args.json:
        print(json.dumps(found, indent=1))
        return
    for name, value in found.items():
        print(f'{name:<17} {", ".join(value) or "none" if isinstance(value, list) else value or "not installed"}')


def _completion(args):
    import shtab
    print(shtab.complete(build_parser(complete=True), args.shell))


def build_parser(complete=False):
    """Parser of all commands; without ``complete``, some take their flags from heavy modules only when used."""
    parser = argparse.ArgumentParser(
        prog='lowlight-cyclegan', description='Low-light image enhancement with an attention CycleGAN, on BasicSR.',
        epilog='Exit codes: 0 done, 1 failed, with a line that says why, 2 wrong command line, 130 interrupted. '
        'COMMAND --help says more.')
    parser.add_argument('--version', action='store_true', help='print the version')
    commands = parser.add_subparsers(title='commands', metavar='COMMAND')

    def add(name, command, text):
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + '.')
        sub.set_defaults(command=command)
        return sub

    add_run_flags(add('train', _run('train'), 'train from an option file; results go to ./experiments'))
    add_run_flags(add('test', _run('test'), 'enhance and measure from an option file; results go to ./results'))

    sub = add('attach', _attach, "make BasicSR's own commands (python basicsr/train.py) see this plugin in a folder")
    sub.add_argument('directory', nargs='?', default='.', help='BasicSR source tree or any folder. Default: this one')
    sub.add_argument('--force', action='store_true', help='overwrite option files that differ from ours')

    sub = add('detach', _detach, 'undo attach')
    sub.add_argument('directory', nargs='?', default='.', help='attached folder. Default: this one')

    add_enhance_commands(add, complete)
    add_evaluate_commands(add)

    sub = add('info', _info, 'show versions, paths, weights and what is registered in BasicSR, or a model card')
    sub.add_argument('model', nargs='?', help='weights in the package, for example lite: prints their card')
    sub.add_argument('--json', action='store_true', help='for programs')

    sub = add('completion', _completion, 'print what completes this command in a shell')
    sub.description += ' For bash: eval "$(lowlight-cyclegan completion bash)" in ~/.bashrc.'
    sub.add_argument('shell', choices=['bash', 'zsh', 'tcsh'])
    return parser


def main(argv=None):
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version:
        from lowlight_cyclegan import __version__
        print(__version__)
    elif not hasattr(args, 'command'):
        parser.print_help()
    else:
        try:
            args.command(args)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough, as in "| head"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None


if __name__ == '__main__':
    main()
