import pytest

from lowlight_cyclegan import commands as cli
from lowlight_cyclegan.prepare import layouts as datasets


@pytest.mark.parametrize('command', ['data', 'data lol', 'data lolv2', 'data lsrw', 'data folder', 'data overlap',
                                     'evaluate', 'ablate'])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), '--help'])
    assert stop.value.code == 0 and f'usage: lowlight-cyclegan {command}' in capsys.readouterr().out


def test_data_needs_a_name(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['data'])
    assert stop.value.code == 2 and 'required: NAME' in capsys.readouterr().err


def test_interrupt_is_one_line(tmp_path, monkeypatch, refusal):

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, 'prepare', interrupted)
    assert refusal(cli.main, ['data', 'lol', str(tmp_path)]) == 'Interrupted; the same command continues.'
