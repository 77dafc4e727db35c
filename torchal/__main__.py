"""`python -m torchal`, and `torchrun -m torchal`."""

import sys

from torchal.command.main import main

if __name__ == "__main__":
    sys.exit(main())
