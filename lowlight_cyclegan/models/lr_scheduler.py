"""The paper's schedule, and what a resumed run does when rates or schedules have been changed."""
import warnings
from basicsr.models.lr_scheduler import CosineAnnealingRestartLR, MultiStepRestartLR
from collections import Counter
from torch.optim.lr_scheduler import LambdaLR

__all__ = ['SCHEDULES', 'LinearDecayLR', 'build_schedule', 'resume_schedules']


class LinearDecayLR(LambdaLR):
    """Constant rate up to ``decay_start``, then linear to zero at ``total_iter`` (CycleGAN's schedule, per iteration).

    The last iteration runs at 1 / (total_iter - decay_start) of the initial rate; after it, the rate is zero.

    Args:
        optimizer (torch.optim.Optimizer): Optimizer.
        total_iter (int): Iterations of the run.
        decay_start (int | None): Iterations at the full rate; None means half of the run. Default: None.
    """

    def __init__(self, optimizer, total_iter, decay_start=None):
        decay_start = total_iter // 2 if decay_start is None else decay_start
        if not 0 <= decay_start < total_iter:
            raise ValueError(f'decay_start must be in [0, total_iter = {total_iter}), got {decay_start}.')
        self.total_iter, self.decay_start = total_iter, decay_start
        super().__init__(optimizer, lambda it: min(1.0, max(0.0, (total_iter - it) / (total_iter - decay_start))))


SCHEDULES = {'LinearDecayLR': LinearDecayLR, 'CosineAnnealingRestartLR': CosineAnnealingRestartLR,
             'MultiStepLR': MultiStepRestartLR, 'MultiStepRestartLR': MultiStepRestartLR}


def build_schedule(optimizer, total_iter, type, **options):
    """The schedule of a section ``scheduler`` for an optimizer.

    Raises:
        ValueError: There is none of this type.
    """
    if type not in SCHEDULES:
        raise ValueError(f"train:scheduler:type: {type!r} is not known, use {', '.join(SCHEDULES)}.")
    if type == 'LinearDecayLR':
        options['total_iter'] = total_iter
    return SCHEDULES[type](optimizer, **options)


def resume_schedules(optimizers, schedulers, state):
    """Restore optimizers and their schedules, but keep to the options where they are others than before.

    Args:
        optimizers (list[torch.optim.Optimizer]): As the options have it.
        schedulers (list[LRScheduler]): One for each, at its first step.
        state (dict): ``optimizers`` and ``schedulers`` of a checkpoint.

    Returns:
        list[str]: What has changed, such as 'lr: was 0.0001, is 1e-06 from here on'.

    Raises:
        ValueError: One line: the checkpoint's are not of these optimizers, or damaged.
    """
    try:
        return _resume_schedules(optimizers, schedulers, state)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0]
        raise ValueError(f"path:resume_state: the state of iteration {state['iter']} does not suit these optimizers "
                         f'({reason}); resume from an earlier one.') from error


def _resume_schedules(optimizers, schedulers, state):
    changes = []
    for optimizer, scheduler, saved, schedule in zip(optimizers, schedulers, state['optimizers'], state['schedulers']):
        for old, new in ((saved['param_groups'][0], optimizer.param_groups[0]), (schedule, vars(scheduler))):
            old, new = _options(old), _options(new)
            changes += [f'{key}: was {old[key]!r}, is {new[key]!r} from here on'
                        for key in new if key in old and old[key] != new[key]]
            if old.keys() - new.keys():
                changes.append(f'scheduler: was another one, is {type(scheduler).__name__} from here on')
    for optimizer, scheduler, saved, schedule in zip(optimizers, schedulers, state['optimizers'], state['schedulers']):
        groups = [{k: v for k, v in group.items() if k != 'params'} for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        if not changes:
            scheduler.load_state_dict(schedule)
            continue
        for group, options in zip(optimizer.param_groups, groups):
            group.update(options, lr=options['initial_lr'])
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Detected call of `lr_scheduler.step')
            for _ in range(schedule['last_epoch']):  # most schedules follow from the rate of the step before
                scheduler.step()
    return list(dict.fromkeys(changes))


# Where a run stands, and how a step is computed: no options of the training.
_STATE = {'lr', 'params', 'optimizer', 'base_lrs', 'last_epoch', 'lr_lambdas', 'verbose', 'fused', 'foreach',
          'capturable', 'differentiable', 'maximize', 'decoupled_weight_decay'}


def _options(values):
    """What comes from an option file in a parameter group or a schedule; the rate is that of the run's beginning."""
    options = {}
    for key, value in values.items():
        if key not in _STATE and not key.startswith('_'):
            if isinstance(value, Counter):  # milestones
                value = sorted(value.elements())
            options['lr' if key == 'initial_lr' else key] = list(value) if isinstance(value, tuple) else value
    return options
