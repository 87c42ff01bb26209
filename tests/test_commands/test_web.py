import argparse
import pytest

from lowlight_cyclegan import commands
from lowlight_cyclegan.commands import web
from lowlight_cyclegan.web import server
from lowlight_cyclegan.web.limits import Limits


def parse(*arguments):
    parser = argparse.ArgumentParser()
    web.add_arguments(parser)
    return parser.parse_args(arguments)


class TestFlags:

    def test_defaults_are_private(self):
        args = parse()
        assert (args.host, args.port, args.model) == ('127.0.0.1', 7860, ['everyday'])
        assert Limits(args.max_mb, args.max_megapixels, args.queue, args.keep) == Limits()

    @pytest.mark.parametrize('flag, value', [
        ('--port', '70000'), ('--port', 'x'), ('--max-mb', '0'), ('--max-megapixels', 'nan'), ('--queue', '0'),
        ('--queue', '1.5'), ('--keep', 'inf')])
    def test_refuses_numbers_that_make_no_sense(self, flag, value, capsys):
        with pytest.raises(SystemExit):
            parse(f'{flag}={value}')
        assert f'argument {flag}: must be a number' in capsys.readouterr().err

    def test_without_gradio_names_the_extra(self, monkeypatch):
        monkeypatch.setattr(server, 'find_spec', lambda name: None)
        with pytest.raises(SystemExit, match=r"^The page needs gradio: pip install 'lowlight_cyclegan\[web\]'$"):
            commands.main(['web'])

    @pytest.mark.parametrize('given, path', [('/', ''), ('/light', '/light'), ('/a/b-c/', '/a/b-c')])
    def test_root_path(self, given, path):
        assert parse('--root-path', given).root_path == path

    @pytest.mark.parametrize('given', ['light', '/a b', '/a//b', 'https://example.com', '/"x'])
    def test_refuses_what_is_no_root_path(self, given, capsys):
        with pytest.raises(SystemExit):
            parse('--root-path', given)
        assert 'must be a path such as /light' in capsys.readouterr().err

    def test_port_taken_is_one_line(self):
        with server._listen('127.0.0.1', 0) as taken:
            port = taken.getsockname()[1]
            words = f'^host 127.0.0.1, port {port}: Address already in use; port 0 .*$'
            with pytest.raises(SystemExit, match=words):
                commands.main(['web', '--port', str(port)])

    def test_unknown_host_is_one_line(self):
        with pytest.raises(SystemExit, match='^host nowhere.invalid, port 0: .*$'):
            commands.main(['web', '--host', 'nowhere.invalid', '--port', '0'])

    @pytest.mark.parametrize('flags, words', [
        (('--model', './no.pth'), './no.pth: '), (('--device', 'abacus'), 'device abacus: ')])
    def test_weights_that_cannot_be_had_end_the_page_with_one_line(self, flags, words, forked):
        code, output = forked(lambda: commands.main(['web', '--port', '0', *flags]))
        assert code == 1 and 'Traceback' not in output
        assert output.splitlines()[0].startswith('Open http://127.0.0.1:')
        assert output.splitlines()[-1].startswith(words)
        assert len(output.splitlines()) == 2
