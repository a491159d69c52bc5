"""`python -m sketchbridge_cli` is `sketchbridge`."""

from __future__ import annotations

import sys

from sketchbridge_cli.entry import main

sys.exit(main())
