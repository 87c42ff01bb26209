"""``python -m lowlight_cyclegan``: the console command."""
from .commands import console

if __name__ == '__main__':
    console()
