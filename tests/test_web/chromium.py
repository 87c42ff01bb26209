"""Headless Chromium for tests, driven through the pipe of its DevTools protocol."""
import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time


def find():
    """Path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)


class Chromium:
    """A browser with one page.

    Args:
        folder (Path): For its profile and downloads.
        size (tuple[int, int]): Of the window.
        phone (bool): Emulate a touch screen.
    """

    def __init__(self, folder, size=(1280, 900), phone=False):
        self.requests, self.console, self.downloads = [], [], {}
        self._count, self._buffer, self._results = 0, b'', {}
        commands, self._write = os.pipe()
        self._read, events = os.pipe()

        def place():  # the browser reads from descriptor 3 and writes to 4
            ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands, events)]
            for end, number in zip(ends, (3, 4)):
                os.dup2(end, number)

        flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
                 '--disable-background-networking', '--remote-debugging-pipe', f'--user-data-dir={folder}/profile']
        self._process = subprocess.Popen([find(), *flags, 'about:blank'], preexec_fn=place, close_fds=False,
                                         start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(events)
        self._session = None
        target = next(target for target in self('Target.getTargets')['targetInfos'] if target['type'] == 'page')
        self._session = self('Target.attachToTarget', targetId=target['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'DOM', 'Runtime', 'Log'):
            self(f'{domain}.enable')
        self('Emulation.setDeviceMetricsOverride', width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone)
        self('Emulation.setTouchEmulationEnabled', enabled=phone)
        self('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(folder), eventsEnabled=True)

    def __call__(self, method, timeout=30, **params):
        """Call a method of the protocol."""
        self._count += 1
        number = self._count
        message = {'id': number, 'method': method, 'params': params}
        if self._session and not method.startswith(('Target.', 'Browser.')):
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + timeout
        while number not in self._results:
            assert self._listen(end - time.monotonic()), f'{method}: no answer'
        answer = self._results.pop(number)
        assert 'error' not in answer, f'{method}: {answer["error"]}'
        return answer['result']

    def _listen(self, timeout):
        if not select.select([self._read], [], [], max(0, timeout))[0]:
            return False
        data = os.read(self._read, 2**20)
        assert data, 'the browser is gone'
        *messages, self._buffer = (self._buffer + data).split(b'\0')
        for message in map(json.loads, messages):
            method, params = message.get('method'), message.get('params', {})
            if 'id' in message:
                self._results[message['id']] = message
            elif method == 'Network.requestWillBeSent':
                self.requests.append(params['request']['url'])
            elif method == 'Runtime.exceptionThrown':
                self.console.append(params['exceptionDetails'].get('exception', {}).get('description', 'exception'))
            elif method == 'Log.entryAdded' and params['entry']['level'] == 'error':
                self.console.append(f'{params["entry"]["text"]} {params["entry"].get("url", "")}')
            elif method == 'Browser.downloadWillBegin':
                self.downloads[params['suggestedFilename']] = False
            elif method == 'Browser.downloadProgress' and params['state'] == 'completed':
                self.downloads.update(dict.fromkeys(self.downloads, True))
        return True

    def open(self, url):
        self('Page.navigate', url=url)

    def evaluate(self, script):
        """Value of a JavaScript expression."""
        result = self('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in result, f'{script}: {result["exceptionDetails"]}'
        return result['result'].get('value')

    def wait(self, script, timeout=30):
        """Wait until an expression is true."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.evaluate(f'Boolean({script})'):
                return
            self._listen(0.1)
        raise AssertionError(f'never true: {script}; the page says {self.evaluate("document.body.innerText")!r}')

    def wait_for_download(self, timeout=30):
        end = time.monotonic() + timeout
        while not (self.downloads and all(self.downloads.values())):
            assert time.monotonic() < end, f'downloads {self.downloads}'
            self._listen(0.1)
        return next(iter(self.downloads))

    def put_file(self, selector, *paths):
        """Choose files in a file field."""
        root = self('DOM.getDocument')['root']['nodeId']
        node = self('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self('DOM.setFileInputFiles', nodeId=node, files=[str(path) for path in paths])

    def screenshot(self, path, full=False):
        data = self('Page.captureScreenshot', format='png', captureBeyondViewport=full)['data']
        with open(path, 'wb') as f:
            f.write(base64.b64decode(data))

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
