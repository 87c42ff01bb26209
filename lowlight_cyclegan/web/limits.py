"""What guards the page: sizes, and which of gradio's routes and requests are let through."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ['Gate', 'Limits']

LARGEST_CALL = 2**18  # bytes of a request that is no upload; those of the page have a few hundred
FORM_BYTES = 2**16  # bytes of an upload's form around the photo


@dataclass(frozen=True)
class Limits:
    """What a page accepts.

    Attributes:
        max_mb: Size of an upload, MiB.
        max_megapixels: Size of a photo.
        queue: Photos that may wait; one is worked on at a time.
        keep: Minutes after its last use at which a photo is removed.
    """
    max_mb: float = 32
    max_megapixels: float = 64
    queue: int = 20
    keep: float = 15

    @property
    def upload_bytes(self) -> int:
        """Size of an upload, bytes."""
        return int(self.max_mb * 2**20)


class Gate:
    """ASGI middleware that refuses what the page never asks for, before it costs anything: routes, bodies, URLs.

    Args:
        app: The page.
        limits: What it accepts.
        root_path: Prefix of the page behind a reverse proxy; one that is still there is taken off a request's path.
    """
    # The routes of gradio that the page uses. Others call functions past the queue, or fetch from elsewhere.
    ROUTES = re.compile(
        r'/(?:|config|theme\.css|robots\.txt|favicon\.ico|manifest\.json|(?:assets|static|svelte|download)/.*|'
        r'gradio_api/(?:info|app_id|startup-events|upload|upload_progress|cancel|reset|file=/.*|'
        r'(?:queue|call|heartbeat)/.*))')

    def __init__(self, app: ASGIApp, limits: Limits, root_path: str = '') -> None:
        self.app, self.limits, self.root_path = app, limits, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse
        refusal = None
        if scope['type'] == 'http':
            if self.root_path and f'{scope["path"]}/'.startswith(f'{self.root_path}/'):
                path = scope['path'].removeprefix(self.root_path) or '/'
                scope = {**scope, 'path': path, 'raw_path': quote(path).encode()}
            refusal = self._refuse(scope)
            if refusal is None and scope['method'] == 'POST' and not scope['path'].endswith('/upload'):
                body = await _read(receive)
                if _names_remote_file(body):
                    refusal = 400, 'Files are taken as uploads only.'
                receive = _replay(body, receive)
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)

    def _refuse(self, scope: Scope) -> tuple[int, str] | None:
        """HTTP status and line for a request that is not let through, by its head alone."""
        if not self.ROUTES.fullmatch(scope['path']):
            return 404, 'Nothing here.'
        if scope['method'] != 'POST':
            return None
        length = dict(scope['headers']).get(b'content-length', b'')
        if not length.isdigit():
            return 411, 'The request must say its length.'
        if scope['path'].endswith('/upload'):
            if int(length) > self.limits.upload_bytes + FORM_BYTES:
                return 413, f'A photo may have up to {self.limits.max_mb:g} MB.'
        elif int(length) > LARGEST_CALL:
            return 413, 'The request is too large.'
        return None


async def _read(receive: Receive) -> bytes:
    body = b''
    while True:
        message = await receive()
        body += message.get('body', b'')
        if not message.get('more_body'):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body which was read already, and then what comes after it."""
    messages: list[Message] = [{'type': 'http.request', 'body': body, 'more_body': False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _names_remote_file(body: bytes) -> bool:
    """True if gradio would fetch a file for this call."""
    try:
        values: list[Any] = [json.loads(body or b'null')]
    except (ValueError, RecursionError):
        return False
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if re.match('https?:', str(value.get('path', '')).strip(), re.IGNORECASE):
                return True
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)
    return False
