"""``python -m lowlight_cyclegan``: the console command."""
from .commands import main

if __name__ == '__main__':
    main()
