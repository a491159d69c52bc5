"""`python -m sketchbridge_server` is `sketchbridge serve`."""

from sketchbridge_server.command import main

raise SystemExit(main())
