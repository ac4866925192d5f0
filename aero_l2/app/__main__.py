"""``python -m aero_l2.app``: the server process, which the supervisor starts."""

from aero_l2.app.main import main

main()
