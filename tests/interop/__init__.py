"""Real peers: other people's programs that speak the protocols of the catalogue.

`install.sh` installs them (Debian packages, and Python packages into the current environment);
`processes` starts and ends them; `twisted_echo.py`, `erlang_echo.escript` and `erlang_port.escript`
are the programs that use a peer's own framing, `echo_program.py` is one that a peer starts. The
conversations are in `tests/test_interop.py` and `tests/test_interop_pipes.py`.
"""
