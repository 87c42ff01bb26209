import cv2
import numpy as np
import pytest

import lowlight_cyclegan

lowlight_cyclegan.register()


@pytest.fixture
def write_pairs(write_images):
    """Function that fills folder/low and folder/high with pictures of the same views, the low ones at a tenth."""

    def write(folder, count=4, low='low', high='high', seed=0):
        write_images(folder / high, count, seed=seed)
        (folder / low).mkdir()
        for path in (folder / high).iterdir():
            img = cv2.imread(str(path))
            cv2.imwrite(str(folder / low / path.name), np.round(img * 0.1).astype(np.uint8))
        return folder

    return write


@pytest.fixture
def refusal():
    """Function that calls another and returns the line with which it ends."""

    def call(function, *args, **kwargs):
        with pytest.raises(SystemExit) as stop:
            function(*args, **kwargs)
        assert isinstance(stop.value.code, str) and '\n' not in stop.value.code, stop.value.code
        return stop.value.code

    return call
