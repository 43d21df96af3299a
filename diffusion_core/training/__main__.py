"""`python -m diffusion_core.training`: see `command`."""

import sys

from diffusion_core.training.command import main

if __name__ == "__main__":
    sys.exit(main())
