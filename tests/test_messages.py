import pytest
import torch

from lowlight_cyclegan import messages


@pytest.fixture
def process(monkeypatch):
    """Function that gives this process a place among others, as torchrun does."""
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)

    def place(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return place


def said(*lines, **kwargs):
    with pytest.raises(SystemExit) as stop:
        messages.fail(*lines, **kwargs)
    return stop.value.code


def test_one_process_says_it_plainly(process):
    assert said('a: wrong', 'b: wrong') == 'a: wrong\nb: wrong'


@pytest.mark.parametrize('names', [('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
                                   ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID')])
def test_each_machine_speaks_once_with_its_rank(process, names):
    """The second of two machines may lack a file that the first has: its first process must say so."""
    process(**dict(zip(names, (0, 4, 0))))
    assert said('x') == '[rank 0] x'
    process(**dict(zip(names, (1, 4, 1))))
    assert said('x') == 1
    process(**dict(zip(names, (2, 4, 0))))
    assert said('x', 'y\nz') == '[rank 2] x\n[rank 2] y\n[rank 2] z'


def test_what_one_process_alone_knows_is_said_by_it(process):
    process(RANK=3, WORLD_SIZE=4, LOCAL_RANK=1)
    assert said('x', alone=True) == '[rank 3] x'


def test_explanations():
    assert messages.explain_run(RuntimeError('DataLoader worker (pid 1) is killed.')).endswith('--auto_resume.')
    assert 'Lost another process' in messages.explain_run(RuntimeError('[gloo/x.cc] Connection closed'))
    assert messages.explain_run(RuntimeError('shapes')) is None and messages.explain_run(KeyError('x')) is None
    assert messages.explain_run(ValueError('a\nb')) == 'a\nb'
    assert messages.explain(FileNotFoundError(2, 'No such file', 'x.yml')) == 'x.yml: No such file'


@pytest.mark.parametrize('error', [ConnectionResetError(104, 'Connection reset by peer'), EOFError()])
def test_a_worker_lost_in_the_middle_of_a_message(error):
    line = messages.explain_run(error)
    assert line.startswith('A DataLoader worker was lost') and line.endswith('Continue with --auto_resume.')


@pytest.mark.parametrize('kind', [ValueError, FileNotFoundError])
def test_what_a_data_loader_worker_raises_is_its_line_alone(kind):
    """torch hands on the traceback of the worker as the text of the exception."""

    class Data(torch.utils.data.Dataset):

        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise kind("dataroot_lq: 'x/1.png' cannot be read (empty file)")

    with pytest.raises(kind) as raised:
        list(torch.utils.data.DataLoader(Data(), num_workers=1))
    assert 'Traceback' in str(raised.value)
    assert messages.explain_run(raised.value) == "dataroot_lq: 'x/1.png' cannot be read (empty file)"
