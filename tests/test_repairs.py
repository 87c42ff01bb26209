import os
import pytest
import sys
import threading
import torch
import torch.distributed as dist
from pathlib import Path
from types import SimpleNamespace

import lowlight_cyclegan

lowlight_cyclegan.register()
from basicsr import train as train_script  # noqa: E402
from basicsr.data.data_sampler import EnlargedSampler  # noqa: E402
from basicsr.data.prefetch_dataloader import CPUPrefetcher, PrefetchDataLoader  # noqa: E402
from basicsr.models.base_model import BaseModel  # noqa: E402
from basicsr.utils import misc, options  # noqa: E402
from lowlight_cyclegan import config  # noqa: E402
from lowlight_cyclegan import resume as resuming  # noqa: E402
from lowlight_cyclegan.data.epoch_sampler import EpochSampler  # noqa: E402


@pytest.fixture
def parse(toy_run, monkeypatch):
    """Function that parses toy.yml with more arguments, as BasicSR's training script does."""
    monkeypatch.chdir(toy_run)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'TORCHELASTIC_RUN_ID'):
        monkeypatch.delenv(name, raising=False)

    def run(*args, is_train=True):
        argv = ['train.py', *(() if '-opt' in args else ('-opt', 'toy.yml')), *args]
        monkeypatch.setattr(sys, 'argv', list(argv))
        opt, parsed = options.parse_options(str(toy_run), is_train=is_train)
        assert sys.argv == argv
        return opt, parsed

    return run


# ------------------------------------------------------------------- options


def test_parsed_options_are_complete(parse, toy_run):
    opt, args = parse('--debug', '--auto_resume')
    assert args.opt == 'toy.yml' and opt['auto_resume'] and opt['name'] == 'debug_toy'
    assert opt['path']['training_states'] == str(toy_run / 'experiments' / 'debug_toy' / 'training_states')
    assert (opt['dist'], opt['rank'], opt['world_size'], opt['num_gpu']) == (False, 0, 1, 0)
    assert opt['train']['optim_g']['lr'] == 1e-3  # written 1e-3, text to plain YAML
    assert opt['datasets']['train']['manual_seed'] == 0
    assert opt['datasets']['train']['phase'] == 'train'


@pytest.mark.parametrize(('entry', 'key', 'value'), [
    ('train:optim_g:lr=1e-4', 'train:optim_g:lr', 1e-4),
    ('train:optim_g:lr=!!float 2e-4', 'train:optim_g:lr', 2e-4),
    ('train:optim_d:betas=[0.9, 1e-2]', 'train:optim_d:betas', [0.9, 0.01]),
    ('val:metrics:psnr:better=lower', 'val:metrics:psnr:better', 'lower'),
    ('val:save_img=True', 'val:save_img', True),
    ('val:suffix=~', 'val:suffix', None),
    ('val:suffix=None', 'val:suffix', None),
    ('val:suffix=a=b', 'val:suffix', 'a=b'),
    ('val:suffix=__import__("os").abort()', 'val:suffix', '__import__("os").abort()'),
    ('name=007', 'name', '7'),
])
def test_force_yml_sets_values(parse, entry, key, value):
    opt, _ = parse('--force_yml', entry)
    for name in key.split(':'):
        opt = opt[name]
    assert opt == value and type(opt) is type(value)


@pytest.mark.parametrize(('entry', 'said'), [
    ('trian:total_iter=3', "no section 'trian', did you mean train?"),
    ('train:optm_g:lr=3', "no section 'optm_g', did you mean optim_g?"),
    ('train:totl_iter=3', 'train:totl_iter: unknown key, did you mean total_iter?'),
    ('train:total_iter', 'write it as section:key=value'),
    ('train["x"]=3', 'unknown key'),
])
def test_force_yml_refuses_what_it_does_not_know(parse, entry, said):
    with pytest.raises(SystemExit) as stop:
        parse('--force_yml', entry)
    assert said in str(stop.value) and '\n' not in str(stop.value)


@pytest.mark.parametrize(('content', 'said'), [
    (None, 'No such file'),
    ('a: [1', 'not valid YAML'),
    ('just words', 'holds no options'),
    ('a: !!python/object/apply:os.getcwd []', 'not valid YAML'),
    (b'\xff\xfe\x00', 'not a text file'),
])
def test_bad_option_file_is_one_line(parse, toy_run, content, said):
    if content is not None:
        (toy_run / 'bad.yml').write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SystemExit) as stop:
        parse('-opt', 'bad.yml')
    assert 'bad.yml' in str(stop.value) and said in str(stop.value) and '\n' not in str(stop.value)


def test_options_suit_a_machine_without_gpu(parse, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    entries = ('pin_memory=true', 'persistent_workers=true', 'prefetch_mode=cuda')
    train = [f'datasets:train:{entry}' for entry in entries]
    opt, _ = parse('--force_yml', 'num_gpu=1', *train, 'datasets:val:pin_memory=true')
    assert opt['num_gpu'] == 0 and 'running on the CPU' in caplog.text
    train = opt['datasets']['train']
    assert (train['pin_memory'], train['persistent_workers'], train['prefetch_mode']) == (False, False, None)
    assert opt['datasets']['val']['pin_memory'] is False


def test_auto_is_one_gpu_without_launcher(parse, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    opt, _ = parse('--force_yml', 'num_gpu=auto', 'datasets:train:pin_memory=true')
    assert opt['num_gpu'] == 1 and opt['datasets']['train']['pin_memory'] is True
    with pytest.raises(SystemExit, match='torchrun'):
        parse('--force_yml', 'num_gpu=2')


def test_lists_are_found_beside_the_yaml_and_in_the_package(parse, toy_run, monkeypatch):
    (toy_run / 'elsewhere').mkdir()
    (toy_run / 'toy.yml').rename(toy_run / 'elsewhere' / 'toy.yml')
    (toy_run / 'held_out.txt').rename(toy_run / 'elsewhere' / 'held_out.txt')
    opt, _ = parse('-opt', 'elsewhere/toy.yml')
    assert opt['datasets']['val']['names'] == os.path.join('elsewhere', 'held_out.txt')
    opt, _ = parse('-opt', 'elsewhere/toy.yml', '--force_yml', 'datasets:train:exclude_names=options/lol_val40.txt')
    assert os.path.isfile(opt['datasets']['train']['exclude_names'])


def test_force_yml_may_come_twice(parse):
    opt, _ = parse('--force_yml', 'train:total_iter=3', '--force_yml', 'name=twice', 'manual_seed=4294967295')
    assert (opt['train']['total_iter'], opt['name'], opt['manual_seed']) == (3, 'twice', 4294967295)


def test_experiments_go_where_the_options_say(parse, toy_run):
    opt, _ = parse('--force_yml', f'path:experiments_root={toy_run}/elsewhere', 'path:results_root=~')
    assert opt['path']['experiments_root'] == opt['path']['log'] == str(toy_run / 'elsewhere' / 'toy')
    assert 'results_root' not in opt['path']  # BasicSR makes a folder of every key
    opt, _ = parse('--force_yml', 'path:experiments_root=runs')
    assert opt['path']['models'] == str(toy_run / 'runs' / 'toy' / 'models')


def test_folders_put_aside_within_a_second_are_all_kept(parse, toy_run, monkeypatch):
    """Runs that end before their first checkpoint and are started again at once."""
    monkeypatch.setattr(misc, 'get_time_str', lambda: '20200101_000000')
    opt, _ = parse()
    experiment = Path(opt['path']['experiments_root'])
    for number in range(4):
        misc.make_exp_dirs(opt)
        (experiment / 'mark').write_text(str(number))
    kept = sorted(experiment.parent.glob('toy_archived_*'))
    assert [(path.name[-17:], (path / 'mark').read_text()) for path in kept] == [
        ('d_20200101_000000', '0'), ('20200101_000000_2', '1'), ('20200101_000000_3', '2')]
    assert (experiment / 'mark').read_text() == '3'


def test_options_are_saved_as_they_are_used(parse, toy_run):
    """Resolved, overridden and completed: what the file was does not say what the run is."""
    (toy_run / 'heir.yml').write_text('_base_: toy.yml\nname: heir\nnum_gpu: auto\n')
    opt, args = parse('-opt', 'heir.yml', '--force_yml', 'network_g:num_feat=4')
    folder = toy_run / 'experiments' / 'heir'
    folder.mkdir(parents=True)
    train_script.copy_opt_file(args.opt, str(folder))
    used = config.load_options(str(folder / 'options_used.yml'))
    assert used['network_g'] == {'type': 'EMAResNetGenerator', 'num_feat': 4, 'num_block': 1, 'ema_factor': 4}
    assert (used['name'], used['num_gpu'], used['train']['pool_size']) == ('heir', 'auto', 50)
    assert 'phase' not in used['datasets']['train'] and 'models' not in used['path']
    again, _ = parse('-opt', str(folder / 'options_used.yml'))
    assert again == opt


def test_other_models_keep_their_ways(parse, toy_run):
    (toy_run / 'other.yml').write_text(
        'name: x\nmodel_type: SRModel\nnum_gpu: 0\npath: {}\nlogger: {}\nmanual_seed: ~\n'
        'datasets: {train: {name: t, type: PairedImageDataset, anything: 1}}\n')
    opt, _ = parse('-opt', 'other.yml', '--force_yml', 'new=1')
    assert opt['new'] == 1 and opt['manual_seed'] > 0 and 'manual_seed' not in opt['datasets']['train']
    assert train_script.EnlargedSampler is EnlargedSampler
    parse()
    assert train_script.EnlargedSampler is EpochSampler


def test_script_run_as_main_is_mended(parse, monkeypatch):
    functions = dict.fromkeys(('load_resume_state', 'create_train_val_dataloader'), lambda *args: None)
    main = SimpleNamespace(__file__=train_script.__file__, __spec__=None, **functions)
    monkeypatch.setitem(sys.modules, '__main__', main)
    parse()
    assert isinstance(main.load_resume_state.__self__, resuming.Resume)
    assert main.EnlargedSampler is EpochSampler
    resume = main.load_resume_state.__self__
    parse()
    assert main.load_resume_state.__self__ is resume


# --------------------------------------------------------------- distributed


@pytest.mark.parametrize(('launcher', 'said'), [('pytorch', 'torchrun'), ('slurm', 'srun')])
def test_launcher_without_its_environment(parse, launcher, said):
    with pytest.raises(SystemExit, match=f'--launcher {launcher}.*{said}'):
        parse('--launcher', launcher)


@pytest.mark.parametrize('scontrol', [None, 'exit 1', 'echo'])
def test_slurm_without_scontrol(parse, monkeypatch, tmp_path, scontrol):
    """Inside a container scontrol is missing: its error must not become the address."""
    (tmp_path / 'bin').mkdir()
    if scontrol is not None:
        (tmp_path / 'bin' / 'scontrol').write_text(f'#!/bin/sh\n{scontrol}\n')
        (tmp_path / 'bin' / 'scontrol').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    for name, value in (('PROCID', '0'), ('NTASKS', '1'), ('LOCALID', '0'), ('NODELIST', 'localhost')):
        monkeypatch.setenv(f'SLURM_{name}', value)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')  # to be taken back
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    with pytest.raises(SystemExit, match='MASTER_ADDR is not set, and scontrol'):
        parse('--launcher', 'slurm')


def test_torchrun_without_launcher(parse, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(SystemExit, match='add it'):
        parse()


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_gloo_without_gpu(parse, monkeypatch, tmp_path, launcher):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    variables = dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='localhost', MASTER_PORT='0')
    if launcher == 'slurm':
        variables = dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0')
        variables['MASTER_ADDR'] = 'localhost'
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # init_dist sets these for slurm: registered here to be taken back
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, os.environ.get(name, '0'))
    try:
        opt, args = parse('--launcher', launcher, '--local-rank', '0', '--force_yml', 'num_gpu=auto')
        assert opt['dist'] and opt['world_size'] == 1 and opt['num_gpu'] == 0
        assert dist.get_backend() == 'gloo'
        model = BaseModel.__new__(BaseModel)
        model.opt, model.device = opt, torch.device('cpu')
        net = model.model_to_device(torch.nn.Linear(2, 2))
        assert isinstance(net, torch.nn.parallel.DistributedDataParallel)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


# -------------------------------------------------------------------- resume


@pytest.fixture
def experiment(parse):
    """Options of an experiment, with a function that writes a checkpoint of it."""
    opt, _ = parse('--auto_resume', '--force_yml', 'train:total_iter=100')
    for key in ('models', 'training_states'):
        os.makedirs(opt['path'][key])

    def write(iteration, **more):
        for name in ('g', 'f', 'd_a', 'd_b'):
            torch.save({'params': {}}, os.path.join(opt['path']['models'], f'net_{name}_{iteration}.pth'))
        state = {'epoch': 0, 'iter': iteration, 'optimizers': [], 'schedulers': [], 'best_metric_results': {},
                 'world_size': 1, 'pools': {}, **more}
        torch.save(state, os.path.join(opt['path']['training_states'], f'{iteration}.state'))

    opt['write'] = write
    return opt


def resume(opt):
    return train_script.load_resume_state(opt)


def test_nothing_to_resume(experiment):
    assert resume(experiment) is None


def test_newest_state_by_number(experiment):
    for iteration in (2, 4, 10):
        experiment['write'](iteration)
    for name in ('best.state', '20.state.tmp', '30_rank1.pth', '.state', '1e3.state'):
        open(os.path.join(experiment['path']['training_states'], name), 'w').close()
    assert resume(experiment)['iter'] == 10
    assert experiment['path']['pretrain_network_d_a'].endswith('net_d_a_10.pth')


@pytest.mark.parametrize('damage', ['empty', 'cut', 'foreign', 'no network', 'other network', 'no rank'])
def test_incomplete_checkpoints_are_named_and_skipped(experiment, caplog, damage):
    experiment['write'](2)
    more = {'world_size': 2} if damage == 'no rank' else {}
    if damage == 'other network':
        more = {'files': {'net_g_4.pth': '0' * 64}}
    experiment['write'](4, **more)
    state = os.path.join(experiment['path']['training_states'], '4.state')
    network = os.path.join(experiment['path']['models'], 'net_g_4.pth')
    if damage == 'empty':
        open(state, 'w').close()
    elif damage == 'cut':
        os.truncate(state, os.path.getsize(state) // 2)
    elif damage == 'foreign':
        torch.save([1, 2], state)
    elif damage == 'no network':
        os.remove(network)
    assert resume(experiment)['iter'] == 2
    named = {'no network': network, 'other network': network, 'no rank': state.replace('.state', '_rank1.pth')}
    assert 'skipped' in caplog.text and named.get(damage, state) in caplog.text


def test_only_broken_checkpoints(experiment, caplog):
    experiment['write'](2)
    open(os.path.join(experiment['path']['training_states'], '2.state'), 'w').close()
    assert resume(experiment) is None
    assert 'starting anew' in caplog.text


def test_states_hold_data_only(experiment, caplog):
    class Evil:
        def __reduce__(self):
            return os.abort, ()

    experiment['write'](2, extra=Evil())
    assert resume(experiment) is None


def test_checkpoint_of_another_version(experiment, caplog):
    """One that holds less than this version resumes from is named; nothing of it is used."""
    experiment['write'](2)
    path = os.path.join(experiment['path']['training_states'], '2.state')
    state = torch.load(path)
    del state['pools']
    torch.save(state, path)
    assert resume(experiment) is None
    assert f'skipped {path}: was saved by another version or program, it holds no pools' in caplog.text


def test_parts_of_other_ranks_are_named_by_the_file_alone(experiment, toy_run):
    """A folder may be called .state too."""
    folder = toy_run / '.state' / 'training_states'
    folder.mkdir(parents=True)
    experiment['write'](2, world_size=2)
    os.rename(os.path.join(experiment['path']['training_states'], '2.state'), folder / '2.state')
    (folder / '2_rank1.pth').touch()
    assert resuming.read_state(str(folder / '2.state'), experiment)['iter'] == 2


def test_named_state(experiment, parse):
    experiment['write'](2)
    experiment['auto_resume'] = False
    experiment['path']['resume_state'] = os.path.join(experiment['path']['training_states'], '2.state')
    assert resume(experiment)['iter'] == 2
    experiment['path']['resume_state'] = 'nowhere/5.state'
    with pytest.raises(SystemExit, match='cannot resume: nowhere/5.state: no such file'):
        resume(experiment)


def test_sampler_continues_where_the_state_ends(experiment):
    experiment['write'](5)
    state = resume(experiment)
    state['epoch'] = 77  # as a run with another world size or batch would have written it
    logger = SimpleNamespace(info=lambda message: None)
    _, sampler, _, _, _ = train_script.create_train_val_dataloader(experiment, logger)
    # 9 images in batches of 4: 3 batches an epoch
    assert state['epoch'] == 1
    sampler.set_epoch(1)
    assert [index.draw for index in sampler] == [8, 9, 10, 11]


def test_rank_1_leaves_the_talking_to_rank_0(parse, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    with pytest.raises(SystemExit) as stop:
        parse('--force_yml', 'train:a=1')
    assert stop.value.code == 1


@pytest.mark.parametrize('workers', [0, 1])
def test_errors_of_prefetched_data_arrive(workers):
    """Where BasicSR's thread ends without a word, and what it prepares batches for waits."""

    class Data(torch.utils.data.Dataset):

        def __len__(self):
            return 4

        def __getitem__(self, index):
            if index == 2:
                raise ValueError('picture 2 cannot be read')
            return index

    loader = PrefetchDataLoader(num_prefetch_queue=1, dataset=Data(), batch_size=1, num_workers=workers)
    prefetcher, found = CPUPrefetcher(loader), []
    thread = threading.Thread(target=read_until_error, args=(prefetcher, found), daemon=True)
    thread.start()
    thread.join(timeout=120)
    assert not thread.is_alive() and found[:2] == [0, 1]
    assert isinstance(found[2], ValueError) and 'picture 2 cannot be read' in str(found[2])
    whole = CPUPrefetcher(PrefetchDataLoader(num_prefetch_queue=2, dataset=range(3), batch_size=1))
    assert [int(whole.next()) for _ in range(3)] == [0, 1, 2] and whole.next() is None


def read_until_error(prefetcher, found):
    try:
        while True:
            found.append(int(prefetcher.next()))
    except ValueError as error:
        found.append(error)
