"""Encoded parts of a video that is being worked off.

Each segment holds a fixed number of frames, is encoded by itself into ``OUTPUT.parts`` and noted in a manifest with the
state of the smoothing at its end, so that an interrupted run continues there and ends with the same pictures. The
segments hold no frame that refers to a later one (no B-frames): one after the other, they are a stream.
"""
import av
import json
import os
import shutil
from collections.abc import Callable
from fractions import Fraction
from os import path as osp
from typing import Any

from lowlight_cyclegan.files import atomic_write, file_sha256, temporary_prefix
from .codecs import CODECS
from .decode import frame_step, tag_colours

MANIFEST = 'manifest.json'
VERSION = 2  # of the folder's layout, and of what the frames depend on besides the settings


class Segments:
    """Folder of finished segments and its manifest.

    Args:
        output: File that the segments are for; the folder is this with ``.parts``.
        settings: Everything that the segments depend on. A folder with the same settings is continued.
        overwrite: Begin anew where the settings differ.
        say: Gets a line where the folder of another version is begun anew.

    Raises:
        ValueError: If the folder holds something else, or segments of other settings.
    """

    def __init__(self, output: str, settings: dict[str, Any], overwrite: bool, say: Callable[[str], None]) -> None:
        self.folder, self.settings = output + '.parts', settings
        self.complete = False
        self.entries: list[dict[str, Any]] = []
        if not osp.isdir(self.folder):
            os.mkdir(self.folder)
        elif osp.exists(osp.join(self.folder, MANIFEST)):
            self._continue(overwrite, say)
        elif not all(name.startswith(temporary_prefix(MANIFEST)) for name in os.listdir(self.folder)):
            raise ValueError(f'{self.folder}: is in the way, and no folder of an interrupted run')
        self.save()

    def _continue(self, overwrite: bool, say: Callable[[str], None]) -> None:
        try:
            with open(osp.join(self.folder, MANIFEST), encoding='utf-8') as f:
                found = json.load(f)
            version, settings = found.get('version'), found['settings']
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{self.folder}: is in the way, and no folder of an interrupted run') from error
        differ = [key for key in self.settings if settings.get(key) != self.settings[key]]
        if version != VERSION:
            say(f'{self.folder}: was begun by another version of this program; it begins anew')
        elif differ and not overwrite:
            raise ValueError(f'{self.folder}: holds the segments of a run that differs in {", ".join(differ)}: '
                             '--overwrite starts anew, the same settings continue')
        if version != VERSION or differ:
            self.remove()
            os.mkdir(self.folder)
            return
        self.complete = found['complete']
        for i, entry in enumerate(found['segments']):
            # Segments from the first one on that is not as it was written are made again.
            if not osp.isfile(self.path(i)) or file_sha256(self.path(i)) != entry['hash']:
                self.complete = False
                break
            self.entries.append(entry)

    @property
    def frames(self) -> int:
        """Frames in the finished segments."""
        return sum(entry['frames'] for entry in self.entries)

    @property
    def unfinished(self) -> str:
        """File of the segment that is being written."""
        return osp.join(self.folder, 'part.nut')

    def path(self, i: int) -> str:
        """File of a finished segment."""
        return osp.join(self.folder, f'{i:05d}.nut')

    def save(self) -> None:
        """Write the manifest."""
        self.write_json(MANIFEST, {'version': VERSION, 'settings': self.settings, 'complete': self.complete,
                                   'segments': self.entries})

    def write_json(self, name: str, content: Any) -> None:
        """Write a file of the folder."""
        atomic_write(osp.join(self.folder, name), json.dumps(content).encode())

    def read_json(self, name: str) -> Any:
        """Content of a file of the folder; None where there is none."""
        try:
            with open(osp.join(self.folder, name), encoding='utf-8') as f:
                return json.load(f)
        except FileNotFoundError:
            return None

    def add(self, frames: int, duration: int, state: dict[str, Any]) -> None:
        """Take over the unfinished file as the next segment.

        Args:
            frames: Their number.
            duration: Of its last frame, in ticks.
            state: Of the smoothing, for the next frame.
        """
        with open(self.unfinished, 'rb') as f:
            os.fsync(f.fileno())
        entry = {'frames': frames, 'hash': file_sha256(self.unfinished), 'duration': duration}
        self.write_json(_state_name(len(self.entries)), state)
        os.replace(self.unfinished, self.path(len(self.entries)))
        self.entries.append(entry)
        self.save()

    def last_state(self) -> dict[str, Any] | None:
        """State of the smoothing at the end of the last segment; None where there is none yet."""
        return self.read_json(_state_name(len(self.entries) - 1)) if self.entries else None

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)


def pixel_format(frame: av.VideoFrame, codec: str) -> str:
    """Of the encoder's frames: 4:2:0 as every player takes it, where size and codec allow."""
    return 'yuv444p' if frame.width % 2 or frame.height % 2 or codec == 'ffv1' else 'yuv420p'


def _state_name(i: int) -> str:
    return f'{i:05d}.json'


class SegmentWriter:
    """Encoder of one segment, into NUT: the container that keeps any time base.

    Args:
        path: File.
        stream: Video stream of the input.
        frame: First frame of the segment; all others are of its size.
        codec: A key of ``CODECS``.
        crf: Constant rate factor; None is the codec's default.
    """

    def __init__(self, path: str, stream: av.VideoStream, frame: av.VideoFrame, codec: str, crf: int | None) -> None:
        encoder, options, default_crf, _ = CODECS[codec]
        self.container = av.open('file:' + path, 'w', format='nut')
        self.stream = self.container.add_stream(encoder, rate=stream.average_rate or Fraction(25))
        context = self.stream.codec_context
        context.width, context.height, context.pix_fmt = frame.width, frame.height, pixel_format(frame, codec)
        context.time_base = self.stream.time_base = stream.time_base
        if stream.sample_aspect_ratio:
            context.sample_aspect_ratio = stream.sample_aspect_ratio
        tag_colours(context, frame)
        if default_crf is not None:
            context.bit_rate = 0
            options = {**options, 'crf': str(default_crf if crf is None else crf)}
        context.options = options
        self.frames, self.duration = 0, 0  # written; of the last one, in ticks
        self.step = frame_step(stream)

    def write(self, frame: av.VideoFrame, like: av.VideoFrame, pts: int) -> None:
        """Encode a frame in this writer's format at a time in ticks, with the duration of an input frame."""
        frame.pts, frame.time_base = pts, like.time_base
        self.container.mux(self.stream.encode(frame))
        self.frames, self.duration = self.frames + 1, like.duration or self.step

    def finish(self) -> None:
        """Write what the encoder still holds, and close the file."""
        self.container.mux(self.stream.encode(None))
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self.container.close()
