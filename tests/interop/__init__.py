"""Real peers: other people's programs that speak the protocols of the catalogue.

`install.sh` installs them (Debian packages, and Python packages into the current environment);
`processes` starts and ends them; `twisted_echo.py` and `erlang_echo.escript` are the programs that
use a peer's own framing. The conversations are in `tests/test_interop.py`.
"""
