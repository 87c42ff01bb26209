"""What the models here share: enhancement by one generator that is trained, validated and resumed exactly."""
import numpy as np
import shlex
import sys
import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger, set_random_seed
from collections import OrderedDict
from copy import deepcopy
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lowlight_cyclegan.archs.self_ensemble_arch import self_ensemble
from .checkpoint import Checkpoints
from .loss_meter import LossMeter
from .lr_scheduler import build_schedule, resume_schedules
from .speed import speed_options
from .stop_signal import StopSignal
from .validation import Validator, save_strip
from .weights import fix_parameters, load_weights

__all__ = ['LowLightModel']


class LowLightModel(BaseModel):
    """A generator G (``network_g``) from low-light to normal-light images, and whatever it takes to train it.

    Datasets give images in [0, 1] or uint8; networks work on [-1, 1]. Validation and testing need G alone.

    Every iteration seeds all random streams from (manual_seed, rank, iteration), so that a resumed run draws the same
    numbers as an uninterrupted one.

    A subclass names its networks and optimizers, builds its losses in ``_init_losses`` and takes the steps of an
    iteration in ``_train_step``.

    Args:
        opt (dict): Options as BasicSR's ``parse_options`` leaves them.

    Raises:
        ValueError: One line: an option has a value that does not suit.
    """

    network_names = ('g', )  # in training, without ``network_``
    optimizer_networks = {'optim_g': ('g', )}  # section of train -> the networks that it updates

    def __init__(self, opt):
        super().__init__(opt)
        self.amp_dtype, self.memory_format = speed_options(opt, self.device)
        self.networks = OrderedDict()
        for name in self.network_names if self.is_train else ('g', ):
            self.networks[name] = self._build_network(name)
        self.net_g_ema = None
        self.validator = Validator(opt)
        if self.is_train:
            self.init_training_settings()

    # ---------------------------------------------------------------- building

    def _build_network(self, name):
        net = build_network(self.opt[f'network_{name}'])
        if self.is_train:
            fix_parameters(net, name, self.opt['train'].get(f'fixed_{name}') or ())
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

    def load_network(self, net, load_path, strict=True, param_key='params'):
        """Load weights, see :func:`load_weights`."""
        load_weights(self.get_bare_model(net), load_path, param_key, strict)

    def init_training_settings(self):
        train_opt = self.opt['train']
        self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            self.net_g_ema = deepcopy(self.get_bare_model(self.networks['g'])).eval().requires_grad_(False)
            load_path = self.opt['path'].get('pretrain_network_g')
            if load_path is not None:
                self.load_network(self.net_g_ema, load_path, self.opt['path'].get('strict_load_g', True), 'params_ema')

        self._init_losses(train_opt)
        self.setup_optimizers()
        self.setup_schedulers()

        self.iteration, self.epoch = 0, 0
        self.checkpoints = Checkpoints(self.opt)
        self.loss_meter = LossMeter(self.device, self.checkpoints.states)
        self._saved_iteration = 0
        self.visuals = OrderedDict()
        self.stop_signal = StopSignal(self.opt['dist'])

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
            if optim_type in ('Adam', 'AdamW') and not optim_opt.get('foreach'):
                optim_opt.setdefault('fused', True)
            params = [p for name in names for p in self.networks[name].parameters() if p.requires_grad]
            self.optimizers.append(self.get_optimizer(optim_type, params, **optim_opt))

    def setup_schedulers(self):
        """A schedule for each optimizer: ``LinearDecayLR`` or one of BasicSR's."""
        train_opt = self.opt['train']
        self.schedulers += [build_schedule(optimizer, train_opt['total_iter'], **train_opt['scheduler'])
                            for optimizer in self.optimizers]

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
        """One iteration on the batch of :meth:`feed_data`.

        Raises:
            ValueError: A loss is not finite.
        """
        self.iteration = current_iter
        set_random_seed(self.seed_of(current_iter))
        losses = self._train_step()
        if self.net_g_ema is not None:
            # The young average forgets its start faster, or a short run would be judged by its first steps.
            self.model_ema(min(self.ema_decay, (1 + current_iter) / (10 + current_iter)))
        self.loss_meter.add(losses, current_iter)
        self._stop_if_asked()

    def _train_step(self):
        """Update the networks, set ``visuals`` to images in [-1, 1] and return the losses by name."""
        raise NotImplementedError

    def seed_of(self, iteration):
        """Seed of an iteration's random streams on this rank."""
        return int(np.random.SeedSequence([self.opt['manual_seed'], self.opt['rank'], iteration]).generate_state(1)[0])

    def model_ema(self, decay=0.999):
        """Weight averaging of G; buffers are taken over."""
        net = self.get_bare_model(self.networks['g'])
        get_ema_multi_avg_fn(decay)(list(self.net_g_ema.parameters()), list(net.parameters()), None)
        for averaged, buffer in zip(self.net_g_ema.buffers(), net.buffers()):
            averaged.copy_(buffer)

    def get_current_log(self):
        """Losses averaged over the iterations since the last call, and over the ranks.

        Raises:
            ValueError: A loss is not finite.
        """
        return self.reduce_loss_dict(self.loss_meter.take())

    def _stop_if_asked(self):
        """After SIGTERM or Ctrl-C: save and exit with the signal's code, once a validation that is due is done."""
        if self.validator.is_due(self.iteration):
            return
        signum = self.stop_signal.on_any_rank()
        if not signum:
            return
        if self._saved_iteration != self.iteration:
            self.save(self.epoch, self.iteration)
        again = 'the same command' if self.opt['dist'] else shlex.join(sys.orig_argv)
        again += '' if '--auto_resume' in sys.orig_argv else ' --auto_resume'
        get_root_logger().warning(f'Stopped at iteration {self.iteration}, everything saved. To continue: {again}')
        sys.exit(128 + signum)

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

    def _enhance(self, data):
        self.feed_data(data)
        self.test()
        return self.get_current_visuals()

    def dist_validation(self, dataloader, current_iter, tb_logger, save_img):
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img):
        """Enhance, measure and save every image, each rank its share; a dataset without ``gt`` has fewer metrics.

        Raises:
            Exception: Whatever an image or a metric raises, once a checkpoint of these weights is there.
        """
        dataset = dataloader.dataset
        dataset_name = dataset.opt['name']
        if self.is_train:
            # BasicSR's loop ends one iteration late, with a validation of weights that it may have validated already.
            current_iter = self.iteration
            if self.validator.done.get(dataset_name) == current_iter:
                return
        if self.opt['dist']:  # BatchNorm's statistics, which each rank takes of its own batches
            for buffer in self._tested_network().buffers():
                dist.broadcast(buffer, 0)
        try:
            new_best = self.validator.run(dataset, self._enhance, current_iter, save_img, tb_logger)
        except Exception:
            if self.is_train and self._saved_iteration != current_iter:
                self.save(self.epoch, current_iter)
            raise
        if not self.is_train:
            return
        if self.opt['logger'].get('keep_best') in new_best and dataset_name == self.validator.names[0]:
            self.checkpoints.save_network('net_g_best', self._stored('g'))
        if save_img and self.opt['rank'] == 0:
            save_strip(self.visuals, self.opt['path']['visualization'], current_iter, tb_logger)
        self._stop_if_asked()

    # ------------------------------------------------------------- checkpoints

    def save(self, epoch, current_iter):
        """Save the networks and everything else that the next iteration depends on; -1 is the networks alone.

        Raises:
            OSError: A file cannot be written.
            ValueError: A loss is not finite.
        """
        self.loss_meter.check()
        networks = {name: self._stored(name) for name in self.networks}
        if current_iter == -1:
            self.checkpoints.save_latest(networks)
            return
        state = {
            'epoch': epoch,
            'iter': current_iter,
            'optimizers': [o.state_dict() for o in self.optimizers],
            'schedulers': [s.state_dict() for s in self.schedulers],
            'best_metric_results': self.validator.best,
        }
        self.checkpoints.save(networks, state, self._rank_state(), current_iter)
        self._saved_iteration = current_iter

    def _stored(self, name):
        """What a network's file holds, by key: for G its averaged weights, too."""
        nets = {'params': self.get_bare_model(self.networks[name])}
        if name == 'g' and self.net_g_ema is not None:
            nets['params_ema'] = self.net_g_ema
        return nets

    def _rank_state(self):
        """Training state that each rank has for itself, as a dict."""
        return {}

    def _load_rank_state(self, state):
        """Restore :meth:`_rank_state`."""

    def resume_training(self, resume_state):
        """Restore what :meth:`save` saved beside the networks; changed rates and schedules are taken, and said.

        Raises:
            ValueError: The checkpoint lies beyond ``total_iter``, or its optimizers are not these.
        """
        total_iter = self.opt['train']['total_iter']
        if resume_state['iter'] > total_iter:
            raise ValueError(f"train:total_iter: is {total_iter}, but the checkpoint is of iteration "
                             f"{resume_state['iter']}: raise total_iter, or name an earlier path:resume_state.")
        changes = resume_schedules(self.optimizers, self.schedulers, resume_state)
        if changes:
            get_root_logger().warning(f"Changed in the options since the checkpoint: {'; '.join(changes)}.")
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if value.shape == parameter.shape:  # laid out as the parameter: channels_last may have been another
                        state[key] = torch.empty_like(parameter).copy_(value)
        self.iteration, self.epoch = resume_state['iter'], resume_state['epoch']
        self.validator.resume(resume_state['best_metric_results'], self.iteration)
        rank_state = self.checkpoints.load_rank(resume_state)
        if rank_state is not None:
            self._load_rank_state(rank_state)
