"""Checkpoint files that are either complete or absent."""
import hashlib
import io
import os
import re
import torch

__all__ = ['atomic_save', 'file_sha256', 'remove_old_checkpoints']


def atomic_save(obj, path):
    """``torch.save`` under a temporary name, flushed to the disk, then renamed: a kill leaves the old file or the new.

    Args:
        obj (object): What to save.
        path (str): Final name.

    Returns:
        str: SHA-256 of the file, in hexadecimal.

    Raises:
        SystemExit: If the file cannot be written (disk full, no permission); what was there before is untouched.
    """
    buffer = io.BytesIO()
    torch.save(obj, buffer)
    data = buffer.getbuffer()
    temporary = f'{path}.tmp'
    try:
        with open(temporary, 'wb') as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _fsync_folder(os.path.dirname(path))
    except OSError as e:
        try:
            os.remove(temporary)
        except OSError:
            pass
        raise SystemExit(f'Cannot save {path}: {e.strerror}. The run stops here; older checkpoints are whole: make '
                         'room or mend the permissions, then start again with --auto_resume.') from e
    return hashlib.sha256(data).hexdigest()


def _fsync_folder(folder):
    # The rename itself is only durable once the folder is: without this, a power cut can lose it.
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_sha256(path):
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def remove_old_checkpoints(models, training_states, iteration, keep_last):
    """Remove all but the newest ``keep_last`` checkpoints, the state first: a checkpoint is never half there.

    Args:
        models (str): Folder of the ``net_*_<iteration>.pth`` files.
        training_states (str): Folder of the ``<iteration>.state`` and ``<iteration>_rank<r>.pth`` files.
        iteration (int): The checkpoint just saved. Higher numbers are not this run's and do not count.
        keep_last (int): How many to keep, at least 1.
    """
    states = sorted(int(name[:-6]) for name in os.listdir(training_states) if re.fullmatch(r'\d+\.state', name))
    states = [state for state in states if state <= iteration]
    for old in states[:-keep_last]:
        os.remove(os.path.join(training_states, f'{old}.state'))
    # All that is older, not only what these states named: a kill between the two steps leaves files without a state.
    for folder, pattern in ((models, r'net_\w+_(\d+)\.pth'), (training_states, r'(\d+)_rank\d+\.pth')):
        for name in os.listdir(folder):
            match = re.fullmatch(pattern, name)
            if match and int(match[1]) < states[-keep_last:][0]:
                os.remove(os.path.join(folder, name))
