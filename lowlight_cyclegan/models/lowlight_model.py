"""What the models here share: enhancement by one generator that is trained, validated and resumed exactly."""
import csv
import inspect
import numpy as np
import os
import shlex
import signal
import sys
import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.metrics import calculate_metric
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger, imwrite, set_random_seed, tensor2img
from basicsr.utils.dist_util import master_only
from basicsr.utils.registry import METRIC_REGISTRY
from collections import OrderedDict
from copy import deepcopy
from os import path as osp
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lowlight_cyclegan.archs.self_ensemble import self_ensemble
from .checkpoint import atomic_save, remove_old_checkpoints
from .lr_scheduler import LinearDecayLR
from .stop_signal import StopSignal
from .winograd import use_winograd

__all__ = ['LowLightModel', 'at_least_fp32']

AMP_DTYPES = {'bf16': torch.bfloat16, None: None}


def at_least_fp32(x):
    """A tensor, or a list or tuple of such, in fp32 or more: losses are never taken in half precision."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(at_least_fp32, x))
    return x.to(torch.promote_types(x.dtype, torch.float32))


def has_bf16(device):
    """Whether a device has instructions for bf16: without them it is slower than fp32."""
    if device.type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    queries = ('_is_avx512_bf16_supported', '_is_amx_tile_supported')
    return device.type == 'cpu' and any(getattr(torch.cpu, query, bool)() for query in queries)


class LowLightModel(BaseModel):
    """A generator G (``network_g``) from low-light to normal-light images, and whatever it takes to train it.

    Datasets give images in [0, 1] or uint8; networks work on [-1, 1]. Validation and testing need G alone.

    Every iteration seeds all random streams from (manual_seed, rank, iteration), so that a resumed run draws the same
    numbers as an uninterrupted one.

    A subclass names its networks and optimizers, builds its losses in ``_init_losses`` and takes the steps of an
    iteration in ``_train_step``.
    """

    network_names = ('g', )  # in training, without ``network_``
    optimizer_networks = {'optim_g': ('g', )}  # section of train -> the networks that it updates

    def __init__(self, opt):
        super().__init__(opt)
        speed = self._speed_options()
        if speed['amp'] not in AMP_DTYPES:
            raise SystemExit(f"amp: {speed['amp']!r} is not supported, use auto, bf16 or leave it out (~).")
        self.amp_dtype = AMP_DTYPES[speed['amp']]
        self.memory_format = torch.channels_last if speed['channels_last'] else torch.contiguous_format
        self.winograd = speed['winograd']
        self.networks = OrderedDict()
        for name in self.network_names if self.is_train else ('g', ):
            self.networks[name] = self._build_network(name)
        self.net_g_ema = None
        if self.is_train:
            self.init_training_settings()

    def _speed_options(self):
        """``amp``, ``channels_last`` and ``winograd``, where they are auto with what suits the device."""
        on_cpu = self.device.type == 'cpu'
        best = {'amp': 'bf16' if has_bf16(self.device) else None, 'channels_last': not on_cpu, 'winograd': on_cpu}
        options = {key: self.opt.get(key) for key in best}
        chosen = {key: best[key] for key, value in options.items() if value == 'auto'}
        if chosen and self.is_train:
            chosen_names = (f"{key}: {'~' if value is None else str(value).lower()}" for key, value in chosen.items())
            get_root_logger().info(f"auto on this {self.device.type} is {', '.join(chosen_names)}.")
        return {**options, **chosen}

    def _build_network(self, name):
        net = build_network(self.opt[f'network_{name}'])
        if self.is_train:
            self._fix(name, net)
        if self.is_train and self.winograd:
            use_winograd(net)
        if self.is_train and self.opt.get('compile'):
            net.compile(dynamic=False)  # in place: the keys of the state dict stay; a graph for each size of batch
        net = self.model_to_device(net)
        self.print_network(net)
        path_opt = self.opt['path']
        load_path = path_opt.get(f'pretrain_network_{name}')
        if load_path is not None:
            strict, key = path_opt.get(f'strict_load_{name}', True), path_opt.get(f'param_key_{name}', 'params')
            self.load_network(net, load_path, strict, key)
        return net

    def _fix(self, name, net):
        """Leave the parameters out of the training whose names begin with an entry of ``fixed_<network>``."""
        for prefix in self.opt['train'].get(f'fixed_{name}') or ():
            parameters = [p for key, p in net.named_parameters() if key.startswith(prefix)]
            if not parameters:
                raise SystemExit(f'train: fixed_{name}: no parameter of network_{name} begins with {prefix!r}.')
            for parameter in parameters:
                parameter.requires_grad_(False)

    def init_training_settings(self):
        train_opt = self.opt['train']
        self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(self.get_bare_model(self.networks['g'])).eval().requires_grad_(False)
            load_path = self.opt['path'].get('pretrain_network_g')
            if load_path is not None:
                self.load_network(self.net_g_ema, load_path, self.opt['path'].get('strict_load_g', True), 'params_ema')

        self.foreach_averaging = train_opt.get('foreach_averaging', True)
        self.defer_losses = train_opt.get('defer_losses', True)
        self._init_losses(train_opt)
        self.nan_policy, self.nan_limit = train_opt.get('nan_policy', 'stop'), train_opt.get('nan_limit', 10)
        if self.nan_policy not in ('stop', 'skip'):
            raise SystemExit(f'train: nan_policy: {self.nan_policy!r} is not known, use stop or skip.')
        self.setup_optimizers()
        self.setup_schedulers()

        self.iteration, self.epoch = 0, 0
        self._loss_names, self._loss_sum, self._loss_count = [], None, 0
        self._bad_iteration = torch.zeros((), dtype=torch.int64, device=self.device)  # first non-finite loss
        self._skipped = 0  # steps that were not taken, their loss not being finite
        self._warned = set()
        self._saved_iteration = 0
        self._pending_save = None  # (epoch, iteration) of a checkpoint that waits for its validation
        self._validated = {}  # dataset name -> iteration
        self.visuals = OrderedDict()
        self.stop_signal = StopSignal()
        # Flags are agreed on between CPUs: no rank waits for its GPU.
        self._flag_group = dist.new_group(backend='gloo') if self.opt['dist'] else None

    def _init_losses(self, train_opt):
        """Build what :meth:`_train_step` needs from the section ``train``."""
        raise NotImplementedError

    def model_to_device(self, net):
        """Move to the device; in a distributed run wrap each network by itself."""
        net = net.to(self.device, memory_format=self.memory_format)
        if self.opt['dist'] and any(p.requires_grad for p in net.parameters()):
            device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            net = DistributedDataParallel(net, device_ids=device_ids)
        return net

    def setup_optimizers(self):
        """An optimizer for each entry of ``optimizer_networks``."""
        for key, names in self.optimizer_networks.items():
            optim_opt = dict(self.opt['train'][key])
            optim_type = optim_opt.pop('type')
            if optim_type in ('Adam', 'AdamW'):
                optim_opt.setdefault('fused', True)
            params = [p for name in names for p in self.networks[name].parameters() if p.requires_grad]
            self.optimizers.append(self.get_optimizer(optim_type, params, **optim_opt))

    def setup_schedulers(self):
        """BasicSR's schedulers and ``LinearDecayLR``."""
        scheduler_opt = dict(self.opt['train']['scheduler'])
        if scheduler_opt.pop('type') != 'LinearDecayLR':
            super().setup_schedulers()
            return
        for optimizer in self.optimizers:
            self.schedulers.append(LinearDecayLR(optimizer, self.opt['train']['total_iter'], **scheduler_opt))

    # ---------------------------------------------------------------- training

    def feed_data(self, data):
        """Take a batch: ``lq`` (n, 3, h, w) and, where there is one, ``gt``; uint8 or floats in [0, 1]."""
        self.lq = self._to_network_range(data['lq'])
        self.gt = self._to_network_range(data['gt']) if 'gt' in data else None
        if 'epoch' in data:
            self.epoch = int(data['epoch'][0])

    def _to_network_range(self, images):
        images = images.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images * 2 - 1

    def _autocast(self):
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    def optimize_parameters(self, current_iter):
        """One iteration on the batch of :meth:`feed_data`."""
        self.iteration = current_iter
        set_random_seed(self.seed_of(current_iter))
        losses = self._train_step()
        if self.net_g_ema is not None:
            # The young average forgets its start faster, or a short run would be judged by its first steps.
            self.model_ema(min(self.ema_decay, (1 + current_iter) / (10 + current_iter)))
        self._record(losses)
        self._stop_if_asked()

    def _train_step(self):
        """Update the networks by :meth:`_step`, set ``visuals`` to images in [-1, 1] and return the losses by name."""
        raise NotImplementedError

    def seed_of(self, iteration):
        """Seed of an iteration's random streams on this rank."""
        return int(np.random.SeedSequence([self.opt['manual_seed'], self.opt['rank'], iteration]).generate_state(1)[0])

    def _step(self, optimizer, loss):
        """Backward and update, unless ``nan_policy: skip`` finds the loss of any rank not finite."""
        optimizer.zero_grad()
        loss.backward()
        if self.nan_policy == 'skip' and self._any_rank(not loss.isfinite()):
            self._skipped += 1
            get_root_logger().warning(f'Loss is not finite at iteration {self.iteration}: step skipped, '
                                      f'{self._skipped} of at most {self.nan_limit}.')
            if self._skipped > self.nan_limit:
                raise SystemExit(f'More than nan_limit: {self.nan_limit} steps had a loss that is not finite, the last '
                                 f'one at iteration {self.iteration}. The run stops without saving: lower the learning '
                                 'rates, or set amp: ~, and start again with --auto_resume.')
            return
        optimizer.step()

    def _any_rank(self, flag):
        """Whether the flag is set on any rank, the same answer on all of them."""
        if self._flag_group is None:
            return bool(flag)
        flag = torch.tensor(int(flag))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._flag_group)
        return bool(flag)

    def _stop_if_asked(self):
        """After SIGTERM or Ctrl-C: save and exit with the signal's code, once a validation that is due is done."""
        if self._validation_due(self.iteration) or not self._any_rank(self.stop_signal.received):
            return
        if self._saved_iteration != self.iteration:
            self._save(self.epoch, self.iteration)
        again = 'the same command' if self.opt['dist'] else shlex.join(sys.orig_argv)
        again += '' if '--auto_resume' in sys.orig_argv else ' --auto_resume'
        get_root_logger().warning(f'Stopped at iteration {self.iteration}, everything saved. To continue: {again}')
        sys.exit(128 + (self.stop_signal.received or signal.SIGTERM))

    def model_ema(self, decay=0.999):
        """Weight averaging of G; buffers are taken over."""
        net = self.get_bare_model(self.networks['g'])
        averaged, current = list(self.net_g_ema.parameters()), list(net.parameters())
        if self.foreach_averaging:
            get_ema_multi_avg_fn(decay)(averaged, current, None)
        else:
            for average, parameter in zip(averaged, current):
                average.lerp_(parameter.detach(), 1 - decay)
        for averaged, buffer in zip(self.net_g_ema.buffers(), net.buffers()):
            averaged.copy_(buffer)

    def _record(self, losses):
        """Add up the losses on the device; ``defer_losses`` reads nothing back before :meth:`get_current_log`."""
        values = torch.stack([v.detach() for v in losses.values()])
        if self.nan_policy == 'stop':
            bad = ~values.isfinite().all() & (self._bad_iteration == 0)
            self._bad_iteration = torch.where(bad, self.iteration, self._bad_iteration)
        else:
            values = values.nan_to_num(0, 0, 0)
        self._loss_names = list(losses)
        self._loss_sum = values if self._loss_sum is None else self._loss_sum + values
        self._loss_count += 1
        if self.device.type == 'cpu' or not self.defer_losses:
            self._stop_if_not_finite(values)

    def _stop_if_not_finite(self, values):
        iteration = int(self._bad_iteration)
        if iteration:
            report = ', '.join(f'{name}: {value:.4g}' for name, value in zip(self._loss_names, values.tolist()))
            states = self.opt['path']['training_states']
            raise SystemExit(f'Loss is not finite at iteration {iteration} ({report}). The run stops without saving; '
                             f'the last checkpoint in {states} is good: lower the learning rates, or set amp: ~, and '
                             'start again with --auto_resume.')

    def get_current_log(self):
        """Losses averaged over the iterations since the last call, and over the ranks."""
        mean = self._loss_sum / self._loss_count
        self._stop_if_not_finite(mean)
        self._loss_sum, self._loss_count = None, 0
        return self.reduce_loss_dict(OrderedDict(zip(self._loss_names, mean.unbind())))

    # -------------------------------------------------------------- validation

    def test(self):
        """Enhance ``self.lq`` into ``self.output``, with the averaged weights when present.

        With ``val: self_ensemble`` as the mean over the four flips, at four times the cost.
        """
        net = self._tested_network()
        training = net.training
        net.eval()
        with torch.inference_mode():
            # Eager: every size of picture would be compiled anew.
            with_flips = self.opt['val'].get('self_ensemble')
            self.output = self_ensemble(net.forward, self.lq) if with_flips else net.forward(self.lq)
        net.train(training)

    def _tested_network(self):
        return self.get_bare_model(self.networks['g']) if self.net_g_ema is None else self.net_g_ema

    def get_current_visuals(self):
        """``lq``, ``result`` and, where there is one, ``gt`` in [0, 1], on the CPU."""
        visuals = OrderedDict(lq=self.lq, result=self.output)
        if self.gt is not None:
            visuals['gt'] = self.gt
        return OrderedDict((k, (v.float().cpu() + 1) / 2) for k, v in visuals.items())

    def dist_validation(self, dataloader, current_iter, tb_logger, save_img):
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img):
        """Enhance, measure and save every image, each rank its share; a dataset without ``gt`` has fewer metrics."""
        dataset = dataloader.dataset
        dataset_name = dataset.opt['name']
        if not self.is_train:
            self._validate(dataset, dataset_name, current_iter, tb_logger, save_img)
            return
        # BasicSR's loop ends one iteration late, with a validation of weights that it may have validated already.
        current_iter = min(current_iter, self.opt['train']['total_iter'])
        if self._validated.get(dataset_name) == current_iter:
            return
        self._validate(dataset, dataset_name, current_iter, tb_logger, save_img)
        self._validated[dataset_name] = current_iter
        if save_img:
            self._save_strip(current_iter, tb_logger)
        if self._pending_save is not None and not self._validation_due(current_iter):
            self._save(*self._pending_save)
            self._pending_save = None
        self._stop_if_asked()

    def _validation_names(self):
        return [opt['name'] for phase, opt in self.opt['datasets'].items() if phase.split('_')[0] == 'val']

    def _validation_due(self, iteration):
        """Whether BasicSR's loop will validate this iteration and has not done so on every dataset."""
        if self.opt.get('val') is None or iteration <= 0 or iteration % self.opt['val']['val_freq']:
            return False
        return any(self._validated.get(name) != iteration for name in self._validation_names())

    def _validate(self, dataset, dataset_name, current_iter, tb_logger, save_img):
        rank, world_size = self.opt['rank'], self.opt['world_size']
        indices = range(rank, len(dataset), world_size)
        if self.opt['dist']:  # BatchNorm's statistics, which each rank takes of its own batches
            for buffer in self._tested_network().buffers():
                dist.broadcast(buffer, 0)
        rows = []  # (index, image name, {metric: value})
        silent = rank != 0 or not self.opt['val'].get('pbar', False)
        with tqdm(total=len(indices), unit='image', disable=silent) as pbar:
            for index, data in zip(indices, DataLoader(dataset, sampler=indices)):
                img_name = osp.splitext(osp.basename(data['lq_path'][0]))[0]
                self.feed_data(data)
                self.test()
                visuals = self.get_current_visuals()
                images = {'img': tensor2img(visuals['result'])}
                if 'gt' in visuals:
                    images['img2'] = tensor2img(visuals['gt'])
                if save_img:
                    imwrite(images['img'], self._result_path(dataset_name, img_name, current_iter))
                rows.append((index, img_name, self._measure(images)))
                pbar.update()
        if self.opt['dist']:
            shares = [None] * world_size
            dist.all_gather_object(shares, rows)
            rows = [row for share in shares for row in share]
        rows = [(img_name, metrics) for _, img_name, metrics in sorted(rows)]
        self._report(dataset_name, rows, current_iter, tb_logger)

    def _measure(self, images):
        """Metrics of one image that its data allows: those that compare need ``img2``."""
        results = {}
        for name, metric_opt in (self.opt['val'].get('metrics') or {}).items():
            img2 = inspect.signature(METRIC_REGISTRY.get(metric_opt['type'])).parameters.get('img2')
            if 'img2' in images or img2 is None or img2.default is not inspect.Parameter.empty:
                metric_opt = {k: v for k, v in metric_opt.items() if k != 'better'}
                results[name] = float(calculate_metric(images, metric_opt))
        return results

    def _result_path(self, dataset_name, img_name, current_iter):
        folder = self.opt['path']['visualization']
        if self.is_train:
            return osp.join(folder, img_name, f'{img_name}_{current_iter}.png')
        return osp.join(folder, dataset_name, f"{img_name}_{self.opt['val'].get('suffix') or self.opt['name']}.png")

    @master_only
    def _report(self, dataset_name, rows, current_iter, tb_logger):
        """Means over finite values with their count, to the log and TensorBoard; each image to a CSV file."""
        names = list(rows[0][1]) if rows else []
        if not names:
            return
        table = osp.join(self.opt['path']['log'], 'metrics', f'{dataset_name}_{current_iter}.csv')
        os.makedirs(osp.dirname(table), exist_ok=True)
        with open(table, 'w', newline='') as f:
            writer = csv.writer(f)
            writer.writerow(['image', *names])
            writer.writerows([img_name, *metrics.values()] for img_name, metrics in rows)

        self.metric_results = {}
        lines = [f'Validation {dataset_name}, {len(rows)} images (each one in {table})']
        keep_best = self.opt['logger'].get('keep_best') if self.is_train else None
        if self.is_train:
            self._initialize_best_metric_results(dataset_name)
        for name in names:
            values = np.array([metrics[name] for _, metrics in rows])
            finite = values[np.isfinite(values)]
            mean = float(finite.mean()) if len(finite) else float('nan')
            self.metric_results[name] = mean
            line = f'\t # {name}: {mean:.4f} (over {len(finite)})'
            if self.is_train:
                self._update_best_metric_result(dataset_name, name, mean, current_iter)
                best = self.best_metric_results[dataset_name][name]
                if best['iter'] == current_iter and name == keep_best and dataset_name == self._validation_names()[0]:
                    self._save_network('g', 'best')
                line += f"\tBest: {best['val']:.4f} @ {best['iter']} iter"
            lines.append(line)
            if tb_logger:
                tb_logger.add_scalar(f'metrics/{dataset_name}/{name}', mean, current_iter)
        get_root_logger().info('\n'.join(lines))

    @master_only
    def _save_strip(self, current_iter, tb_logger):
        """A row for each image of the last training batch, a column for each entry of ``visuals``."""
        if not self.visuals:
            return
        columns = [v[:4].detach().float().cpu() for v in self.visuals.values()]
        strip = torch.cat([torch.cat(list(column), dim=1) for column in columns], dim=2)  # (3, n * h, columns * w)
        strip = (strip.clamp(-1, 1) + 1) / 2
        name = '_'.join(self.visuals)
        folder = osp.join(self.opt['path']['visualization'], 'training')
        imwrite(tensor2img(strip), osp.join(folder, f'{name}_{current_iter}.png'))
        if tb_logger:
            tb_logger.add_image(f'training/{name}', strip, current_iter)

    # ------------------------------------------------------------- checkpoints

    def save(self, epoch, current_iter):
        """Save a checkpoint; one that is about to be validated waits for that, to hold its best metrics too."""
        if self._validation_due(current_iter):
            self._pending_save = (epoch, current_iter)
        else:
            self._save(epoch, current_iter)

    def _save(self, epoch, current_iter):
        """The networks, then the training state that names them: a checkpoint counts once its state is there."""
        self._stop_if_not_finite(self._loss_sum if self._loss_sum is not None else torch.zeros(0))
        if current_iter != -1 and self.opt['rank'] > 0:
            atomic_save(self._rank_state(), self._rank_state_path(current_iter))
        files = {}
        for name in self.networks:
            files.update(self._save_network(name, current_iter) or {})
        if self.opt['dist']:
            dist.barrier()
        if current_iter != -1:
            self.save_training_state(epoch, current_iter, files)
            self._saved_iteration = current_iter

    def _save_network(self, name, current_iter):
        nets, keys = [self.networks[name]], ['params']
        if name == 'g' and self.net_g_ema is not None:
            nets, keys = [*nets, self.net_g_ema], [*keys, 'params_ema']
        return self.save_network(nets, f'net_{name}', current_iter, keys)

    @master_only
    def save_network(self, net, net_label, current_iter, param_key='params'):
        """As BasicSR's, into the same file, but atomically and with errors that stop the run.

        Returns:
            dict[str, str]: File name -> SHA-256.
        """
        nets = net if isinstance(net, list) else [net]
        keys = param_key if isinstance(param_key, list) else [param_key]
        name = f"{net_label}_{'latest' if current_iter == -1 else current_iter}.pth"
        states = {}
        for key, net in zip(keys, nets):
            state = self.get_bare_model(net).state_dict()
            states[key] = OrderedDict((k, v.cpu().contiguous()) for k, v in state.items())
        return {name: atomic_save(states, osp.join(self.opt['path']['models'], name))}

    @master_only
    def save_training_state(self, epoch, current_iter, files):
        """Everything but the networks that the next iteration depends on; ``files`` are the networks' hashes."""
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'best_metric_results': getattr(self, 'best_metric_results', {}),
            'skipped': self._skipped,
            'world_size': self.opt['world_size'],
            'files': files,
            **self._rank_state()
        }
        folder = self.opt['path']['training_states']
        atomic_save(state, osp.join(folder, f'{current_iter}.state'))
        keep_last = self.opt['logger'].get('keep_last')
        if keep_last:
            remove_old_checkpoints(self.opt['path']['models'], folder, current_iter, keep_last)

    def _rank_state(self):
        """What each rank must save for itself."""
        return {}

    def _load_rank_state(self, state):
        """Take back what :meth:`_rank_state` gave."""

    def _rank_state_path(self, current_iter):
        return osp.join(self.opt['path']['training_states'], f"{current_iter}_rank{self.opt['rank']}.pth")

    def resume_training(self, resume_state):
        """Take back what :meth:`save_training_state` and the ranks saved."""
        super().resume_training(resume_state)
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if value.shape == parameter.shape:  # laid out as the parameter: channels_last may have been another
                        state[key] = torch.empty_like(parameter).copy_(value)
        self.iteration, self.epoch = resume_state['iter'], resume_state['epoch']
        self.best_metric_results = resume_state['best_metric_results']
        self._skipped = resume_state['skipped']
        rank_state = resume_state
        if resume_state['world_size'] != self.opt['world_size']:
            get_root_logger().warning(
                f"This checkpoint was saved by {resume_state['world_size']} processes and is resumed by "
                f"{self.opt['world_size']}: what a rank keeps for itself starts empty on new ones, and batches differ "
                'from here on.')
        if self.opt['rank'] > 0:
            path = self._rank_state_path(resume_state['iter'])
            rank_state = torch.load(path, map_location='cpu') if osp.exists(path) else None
        if rank_state is not None:
            self._load_rank_state(rank_state)
