"""What the tests share, one file a subject.

engines            the two engines by name; make all codecs of a test use one of them
sample_codecs      a codec of each kind, messages and streams for it, damaged streams
strategies         Hypothesis strategies for codecs, messages and streams
chunking           ways to cut a stream, and ways to pass the pieces to a splitter
reference_parser   a slow, simple parser: what any splitter must return
observe            all that a caller can see of a splitter or an encoder, as plain data
fault_injection    sockets that fail on demand, and signals that interrupt a call
event_loops        asyncio's loop and uvloop by name, and connections in them
subprocesses       Python programs as processes that always end
"""
