"""The page itself, built with gradio: a photo in, before and after side by side, a link to the full-size result.

gradio reads environment variables when it is imported: this module is imported once they are set, see ``server.py``.
"""
from __future__ import annotations

import html
import logging
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio

from .limits import Limits
from .store import GONE, Photos
from lowlight_cyclegan.messages import first_line

if TYPE_CHECKING:
    from lowlight_cyclegan.enhance.enhancer import Enhancer

__all__ = ['CSS', 'FONTS', 'build_page']

FONTS = ['system-ui', 'sans-serif']
HEADING = ('<h1>Light for dark photos</h1><p>Drop one below. It is worked on by the machine that serves this page and '
           'goes nowhere else.</p>')
CSS = Path(__file__).with_name('page.css').read_text(encoding='utf-8')


def build_page(models: Mapping[str, Callable[[], Enhancer]], worker: Executor, photos: Photos, limits: Limits,
               root_path: str) -> gradio.Blocks:
    """The page as gradio's Blocks, its queue included. Arguments are those of ``server.build_app``."""
    downloads = f'{root_path}/download' if root_path else 'download'
    names = list(models)

    def refuse(text: str) -> list[Any]:
        return [_status(text, bad=True), *[gradio.skip()] * 4]

    def link_to(token: str | None, strength: int) -> str:
        return f'<a class="primary" href="{downloads}/{token}/{strength}">Download full size</a>'

    def enhance(path: str | Path, model: str, strength: int, token: str | None) -> list[Any]:
        """Outputs of the page for a photo; where it cannot be had, only the line that says why."""
        name, start = Path(path).name, time.monotonic()
        try:
            new, (width, height), note = worker.submit(lambda: photos.add(path, models[model]())).result()
        except FileNotFoundError:
            return refuse(GONE)
        except ValueError as error:
            # flags are for who serves the page, not for who uses it
            return refuse(re.sub(r' \(--[^)]*\)', '', first_line(error)))
        except (MemoryError, RuntimeError, OSError) as error:  # torch has no narrower class for memory on the CPU
            logging.getLogger('lowlight_cyclegan').exception('%s: %s', name, error)
            return refuse(f'{name}: this machine could not work on it, perhaps for want of memory: try a smaller one.')
        photos.remove(token)
        said = f'{name} · {width} × {height} · {time.monotonic() - start:.1f} s{f" · {note}" if note else ""}'
        return [_status(said), gradio.Column(visible=True), photos.preview(new, strength), link_to(new, strength), new]

    def enhance_upload(path: str | None, model: str, strength: int, token: str | None) -> list[Any]:
        # The place of the upload is free for the next photo at once.
        return [None, *(enhance(path, model, strength, token) if path else [gradio.skip()] * 5)]

    def enhance_again(model: str, strength: int, token: str | None) -> list[Any]:
        try:
            path = photos.original(token)
        except FileNotFoundError:
            return refuse(GONE)
        return enhance(path, model, strength, token)

    def change_strength(strength: int, token: str | None) -> list[Any]:
        try:
            return [gradio.skip(), photos.preview(token, strength), link_to(token, strength)]
        except FileNotFoundError:
            return [_status(GONE, bad=True), gradio.skip(), '']

    with gradio.Blocks(title='Light for dark photos', analytics_enabled=False,
                       delete_cache=(60, int(limits.keep * 60))) as page:
        gradio.HTML(HEADING, padding=False)
        upload = gradio.File(label='Photo', show_label=False, height=136, elem_id='upload')
        rules = (f'Up to {limits.max_mb:g} MB and {limits.max_megapixels:g} megapixels. '
                 f'Removed {limits.keep:g} minutes after its last use.')
        status = gradio.HTML(_status(rules), elem_id='status', padding=False)
        token = gradio.State()
        with gradio.Column(visible=False, elem_id='result') as result:
            slider = gradio.ImageSlider(label='Before and after', show_label=False, interactive=False,
                                        buttons=['fullscreen'], max_height=680, elem_id='compare')
            with gradio.Row():
                strength = gradio.Slider(0, 100, 100, step=5, precision=0, label='Strength, %', min_width=280,
                                         elem_id='strength')
                model = gradio.Radio(names, value=names[0], label='Model', visible=len(names) > 1, min_width=280,
                                     elem_id='model')
            link = gradio.HTML(elem_id='download', padding=False)

        shown = [status, result, slider, link, token]
        queue: dict[str, Any] = {'concurrency_id': 'network', 'concurrency_limit': 1, 'show_progress_on': upload}
        upload.upload(enhance_upload, [upload, model, strength, token], [upload, *shown], api_name='enhance', **queue)
        model.input(enhance_again, [model, strength, token], shown, api_visibility='private', **queue)
        strength.change(change_strength, [strength, token], [status, slider, link], api_name='strength',
                        concurrency_id='blend', concurrency_limit=1, show_progress='hidden', trigger_mode='always_last')
    return page.queue(max_size=limits.queue)


def _status(text: str, bad: bool = False) -> str:
    return f'<p class="{"bad" if bad else "said"}" role="{"alert" if bad else "status"}">{html.escape(text)}</p>'
